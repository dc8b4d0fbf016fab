// The dashboard as Grafana's own types have it; a test puts the file in the place of DASHBOARD.
import type { Dashboard, Panel, RowPanel } from '@grafana/schema';
import type { Options as Stat } from './node_modules/@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as Table } from './node_modules/@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as TimeSeries } from './node_modules/@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the words of an enum, not the enum itself.
type Json<T> = 0 extends 1 & T ? T : T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
// What a panel does not say is its default.
type Of<Type extends string, Options> = Omit<Json<Panel>, 'type' | 'options'> & { type: Type; options: Partial<Json<Options>> };
type Panels = Of<'stat', Stat> | Of<'table', Table> | Of<'timeseries', TimeSeries> | RowPanel;

const dashboard: Omit<Json<Dashboard>, 'panels'> & { panels: Panels[] } = DASHBOARD;
export default dashboard;
