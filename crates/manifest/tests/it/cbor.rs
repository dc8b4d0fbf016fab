//! Enough of CBOR to change one value of a message and write it again canonically.

use minicbor::{Decoder, Encoder, data::Type};

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Negative(i64),
    Bytes(Vec<u8>),
    Text(String),
    Bool(bool),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

pub fn read(bytes: &[u8]) -> Value {
    let mut decoder = Decoder::new(bytes);
    let value = read_one(&mut decoder);
    assert_eq!(decoder.position(), bytes.len(), "nothing may follow");
    value
}

pub fn write(value: &Value) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write_one(value, &mut encoder);
    encoder.into_writer()
}

/// Every form of `value` with exactly one leaf changed, one element added, or one taken away.
pub fn changes(value: &Value) -> Vec<Value> {
    match value {
        Value::Unsigned(number) => vec![Value::Unsigned(number.wrapping_add(1)), Value::Null],
        Value::Negative(number) => vec![Value::Negative(number.saturating_sub(1))],
        Value::Bool(bool) => vec![Value::Bool(!bool)],
        Value::Null => vec![Value::Unsigned(0), Value::Text("x".to_owned())],
        Value::Bytes(bytes) => {
            let mut changed = bytes.clone();
            match changed.first_mut() {
                Some(first) => *first ^= 1,
                None => changed.push(0),
            }
            vec![Value::Bytes(changed), Value::Null]
        }
        Value::Text(text) => vec![Value::Text(format!("{text}x")), Value::Null],
        Value::Array(items) => array_changes(items),
        Value::Map(pairs) => map_changes(pairs),
    }
}

fn array_changes(items: &[Value]) -> Vec<Value> {
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        for changed in changes(item) {
            let mut items = items.to_vec();
            items[index] = changed;
            found.push(Value::Array(items));
        }
        let mut fewer = items.to_vec();
        fewer.remove(index);
        found.push(Value::Array(fewer));
    }
    found.push(Value::Array([items, &[Value::Null]].concat()));
    found
}

fn map_changes(pairs: &[(Value, Value)]) -> Vec<Value> {
    let mut found = Vec::new();
    for (index, (_, value)) in pairs.iter().enumerate() {
        for changed in changes(value) {
            let mut pairs = pairs.to_vec();
            pairs[index].1 = changed;
            found.push(Value::Map(pairs));
        }
        let mut fewer = pairs.to_vec();
        fewer.remove(index);
        found.push(Value::Map(fewer));
    }
    let added = (Value::Unsigned(1000), Value::Unsigned(1));
    found.push(Value::Map([pairs, &[added]].concat()));
    found
}

fn read_one(decoder: &mut Decoder<'_>) -> Value {
    match decoder.datatype().unwrap() {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Unsigned(decoder.u64().unwrap()),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => Value::Negative(decoder.i64().unwrap()),
        Type::Bytes => Value::Bytes(decoder.bytes().unwrap().to_vec()),
        Type::String => Value::Text(decoder.str().unwrap().to_owned()),
        Type::Bool => Value::Bool(decoder.bool().unwrap()),
        Type::Null => {
            decoder.null().unwrap();
            Value::Null
        }
        Type::Array => {
            let length = decoder.array().unwrap().unwrap();
            Value::Array((0..length).map(|_| read_one(decoder)).collect())
        }
        Type::Map => {
            let length = decoder.map().unwrap().unwrap();
            Value::Map(
                (0..length)
                    .map(|_| (read_one(decoder), read_one(decoder)))
                    .collect(),
            )
        }
        other => panic!("{other} has no place in signed bytes"),
    }
}

fn write_one(value: &Value, encoder: &mut Encoder<Vec<u8>>) {
    match value {
        Value::Unsigned(number) => encoder.u64(*number).map(drop),
        Value::Negative(number) => encoder.i64(*number).map(drop),
        Value::Bytes(bytes) => encoder.bytes(bytes).map(drop),
        Value::Text(text) => encoder.str(text).map(drop),
        Value::Bool(bool) => encoder.bool(*bool).map(drop),
        Value::Null => encoder.null().map(drop),
        Value::Array(items) => {
            encoder.array(items.len() as u64).unwrap();
            items.iter().for_each(|item| write_one(item, encoder));
            Ok(())
        }
        Value::Map(pairs) => {
            encoder.map(pairs.len() as u64).unwrap();
            for (key, value) in pairs {
                write_one(key, encoder);
                write_one(value, encoder);
            }
            Ok(())
        }
    }
    .unwrap();
}
