//! An input that is several things one after the other: what kind, how long, and the bytes.

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// What the target makes of the bytes.
    pub op: u8,
    pub bytes: &'a [u8],
}

/// Bytes before those of a step: what kind it is, and how many follow.
const HEAD_BYTES: usize = 3;

/// The steps of an input. The last one may be cut short.
pub fn steps(mut input: &[u8]) -> impl Iterator<Item = Step<'_>> {
    std::iter::from_fn(move || {
        let ([op, high, low], rest) = input.split_first_chunk::<HEAD_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        input = rest;
        Some(Step { op: *op, bytes })
    })
}

/// Adds a step to an input. What is longer than a step can be is left out.
pub fn push(input: &mut Vec<u8>, op: u8, bytes: &[u8]) {
    let Ok(length) = u16::try_from(bytes.len()) else {
        return;
    };
    input.push(op);
    input.extend(length.to_be_bytes());
    input.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_back_as_they_went() {
        let mut input = Vec::new();
        push(&mut input, 7, b"one");
        push(&mut input, 8, b"");
        push(&mut input, 9, &vec![0; 1 << 16]);
        let found: Vec<Step<'_>> = steps(&input).collect();
        let one = Step {
            op: 7,
            bytes: b"one",
        };
        assert_eq!(found, [one, Step { op: 8, bytes: b"" }]);
        input.truncate(5);
        assert_eq!(
            steps(&input).next().map(|step| step.bytes),
            Some(&b"on"[..])
        );
    }
}
