//! The words of a query: what they may be, and what is said of those that are something else.

use axum::{
    extract::{FromRequestParts, Query, rejection::QueryRejection},
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A query that was read; whoever wrote another one is told which word is wrong.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl<T, S> FromRequestParts<S> for Asked<T>
where
    T: serde::de::DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(refused(&rejection)),
        }
    }
}

fn refused(rejection: &QueryRejection) -> Response {
    (rejection.status(), rejection.body_text() + "\n").into_response()
}

/// On by `1`, by `true`, or by its name alone; off by `0` or `false`. Nothing else is guessed at: whoever
/// writes `yes` learns that it is no word, rather than that nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" | "1" | "true" => Ok(Self(true)),
            "0" | "false" => Ok(Self(false)),
            other => Err(D::Error::custom(format!(
                "{other:?} is no switch: write 1 or true, 0 or false"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Words {
        follow: Option<Switch>,
    }

    #[test]
    fn a_switch_is_on_or_off_and_nothing_else() {
        let read = |query: &str| {
            let uri = format!("http://localhost/logs?{query}").parse().unwrap();
            let read = Query::<Words>::try_from_uri(&uri);
            read.map(|words| words.0.follow.map(|switch| switch.0))
        };
        for (query, expected) in [
            ("", None),
            ("follow", Some(true)),
            ("follow=1", Some(true)),
            ("follow=true", Some(true)),
            ("follow=0", Some(false)),
            ("follow=false", Some(false)),
        ] {
            assert_eq!(read(query).unwrap(), expected, "{query}");
        }
        for query in ["follow=yes", "follow=2", "follow=TRUE", "follow=%20"] {
            let words = read(query).unwrap_err().body_text();
            assert!(words.contains("write 1 or true"), "{words}");
        }
    }
}
