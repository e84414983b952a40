//! A bearer token: never shown, never logged.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tonic::metadata::MetadataMap;

/// Longest token, bytes. One of a service account has about 1,200.
const LONGEST: usize = 16 << 10;

/// A token as it was sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// From `authorization: Bearer TOKEN`; `None`: there is none.
    pub(super) fn of(metadata: &MetadataMap) -> Option<Self> {
        let mut values = metadata.get_all("authorization").iter();
        let (value, more) = (values.next()?, values.next());
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let plain = |byte: u8| byte.is_ascii_graphic();
        let fine = scheme.eq_ignore_ascii_case("bearer")
            && more.is_none()
            && (1..=LONGEST).contains(&token.len())
            && token.bytes().all(plain);
        fine.then(|| Self(token.to_owned()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// When it ends by what it says itself, seconds since the Unix epoch. To be believed only
    /// after a review: nothing is verified here.
    pub(super) fn ends(&self) -> Option<u64> {
        #[derive(serde::Deserialize)]
        struct Claims {
            exp: u64,
        }
        let payload = self.0.split('.').nth(1)?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.exp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<String> {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append("authorization", value.parse().unwrap());
        }
        Token::of(&metadata).map(|token| token.text().to_owned())
    }

    #[test]
    fn one_bearer_token_is_taken() {
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer abc"]).as_deref(), Some("abc"));
        let long = format!("Bearer {}", "x".repeat(LONGEST + 1));
        for values in [
            &[][..],
            &["abc"],
            &["Basic abc"],
            &["Bearer "],
            &["Bearer a b"],
            &["Bearer a", "Bearer b"],
            &[&long],
        ] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }

    #[test]
    fn its_end_is_read_and_it_is_never_shown() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(br#"{"exp":1700000000,"aud":["bulkhead"]}"#);
        let token = Token(format!("e30.{payload}.signature"));
        assert_eq!(token.ends(), Some(1_700_000_000));
        assert_eq!(format!("{token:?}"), "Token");
        for text in ["opaque", "a.b.c", "e30.e30.e30", ""] {
            assert_eq!(Token(text.to_owned()).ends(), None, "{text}");
        }
    }
}
