//! Parts of a status, by name.

use serde_json::Value;

pub fn component<'s>(status: &'s Value, name: &str) -> &'s Value {
    let components = status["components"].as_array().unwrap();
    components
        .iter()
        .find(|component| component["name"] == name)
        .unwrap_or(&Value::Null)
}

pub fn node<'s>(status: &'s Value, name: &str) -> &'s Value {
    let nodes = status["nodes"].as_array().unwrap();
    nodes
        .iter()
        .find(|node| node["name"] == name)
        .unwrap_or(&Value::Null)
}

pub fn cells_on(component: &Value) -> Vec<String> {
    let running = component["cells"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|cell| cell["state"] == "running");
    running
        .map(|cell| cell["node"].as_str().unwrap().to_owned())
        .collect()
}
