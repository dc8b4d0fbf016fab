//! `realm ls` and `realm use`: the realms this person has.

use crate::{commands::Session, error::Result, realms::Realms};

pub fn ls(session: &Session) -> Result<()> {
    let realms = Realms::new(&session.settings.state_dir());
    let all = realms.list()?;
    let current = if all.is_empty() {
        None
    } else {
        realms.find(None).ok().map(|realm| realm.id)
    };
    let mut rows = Vec::new();
    for realm in &all {
        rows.push((
            realm,
            Some(realm.id) == current,
            realm.mark()?,
            realm.owner()?,
        ));
    }
    if session.output.json() {
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(realm, current, mark, owner)| {
                serde_json::json!({
                    "id": realm.id, "name": realm.genesis.name, "owner": owner,
                    "current": current, "revision": mark,
                })
            })
            .collect();
        return session.output.object(&rows);
    }
    if all.is_empty() {
        session.output.say("no realms yet. Next: realm init");
        return Ok(());
    }
    let rows = rows
        .into_iter()
        .map(|(realm, current, mark, owner)| {
            vec![
                if current { "*" } else { "" }.to_owned(),
                realm.genesis.name.clone(),
                realm.id.short(),
                owner.to_string(),
                mark.to_string(),
            ]
        })
        .collect();
    session
        .output
        .table(&["", "NAME", "ID", "OWNER", "REVISION"], rows)
}

pub fn select(name: &str, session: &Session) -> Result<()> {
    let realms = Realms::new(&session.settings.state_dir());
    let realm = realms.find(Some(name))?;
    realms.select(&realm)?;
    session.output.say(format!(
        "✓ using {} {}",
        realm.genesis.name,
        realm.id.short()
    ));
    Ok(())
}
