//! Deterministic CBOR: one value has one encoding, anything else is refused.

use minicbor::{Decode, Encode};

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("malformed bytes")]
    Malformed(#[source] minicbor::decode::Error),
    #[error("not in canonical form")]
    NotCanonical,
    #[error("{size} bytes, at most {max} are allowed")]
    TooLarge { size: usize, max: usize },
}

pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

/// Decodes `bytes` and refuses every encoding but the one [`encode`] makes.
pub fn decode<T>(bytes: &[u8], max: usize) -> Result<T, Error>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    if bytes.len() > max {
        return Err(Error::TooLarge {
            size: bytes.len(),
            max,
        });
    }
    let value = minicbor::decode(bytes).map_err(Error::Malformed)?;
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(Error::NotCanonical)
    }
}
