//! `realm config show [--origin]`: the settings in force.

use crate::{error::Result, output::Output, settings::Settings};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show every setting in force.
    Show {
        /// Say which layer each setting came from.
        #[arg(long)]
        origin: bool,
    },
}

pub fn run(command: &Command, settings: &Settings, output: &Output) -> Result<()> {
    let Command::Show { origin } = command;
    if output.json() {
        let object: serde_json::Map<String, serde_json::Value> = settings
            .iter()
            .map(|(key, setting)| {
                let row = serde_json::json!({
                    "value": setting.value,
                    "origin": setting.origin.to_string(),
                });
                (key.to_owned(), row)
            })
            .collect();
        return output.object(&object);
    }
    let mut rows = Vec::new();
    for (key, setting) in settings.iter() {
        let mut row = vec![key.to_owned(), setting.value.clone()];
        if *origin {
            row.push(setting.origin.to_string());
        }
        rows.push(row);
    }
    let header: &[&str] = if *origin {
        &["KEY", "VALUE", "ORIGIN"]
    } else {
        &["KEY", "VALUE"]
    };
    output.table(header, rows)
}
