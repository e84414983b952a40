//! Page tokens: opaque texts that only the question which they answer takes back.

use std::fmt::Write as _;

use prost::Message;

/// A text is no page token of this kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoToken;

/// Where a page of a list ended.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListPosition {
    /// The last name on the page.
    #[prost(string, tag = "1")]
    pub(crate) after: String,
}

/// A position as a token. `question`: what the token belongs to.
pub(crate) fn encode(question: u64, position: &impl Message) -> String {
    let mut bytes = position.encode_to_vec();
    bytes.extend(checksum(question, &bytes).to_be_bytes());
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The position of a token that [`encode`] made for the same question.
pub(crate) fn decode<M: Message + Default>(question: u64, token: &str) -> Result<M, NoToken> {
    let digits = token.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let plain = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(pair).ok().filter(|_| plain)?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Vec<u8> = digits.map(byte).collect::<Option<_>>().ok_or(NoToken)?;
    let (position, sum) = bytes.split_last_chunk::<8>().ok_or(NoToken)?;
    if checksum(question, position) != u64::from_be_bytes(*sum) {
        return Err(NoToken);
    }
    M::decode(position).map_err(|_| NoToken)
}

/// FNV-1a, 64 bits: the same in every version and on every machine.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let all = seed.to_be_bytes().into_iter().chain(bytes.iter().copied());
    all.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_only_to_its_question() {
        let position = ListPosition { after: "team-a".to_owned() };
        let token = encode(7, &position);
        assert_eq!(decode(7, &token), Ok(position));
        assert_eq!(decode::<ListPosition>(8, &token), Err(NoToken));
    }

    #[test]
    fn garbage_is_no_token() {
        let token = encode(7, &ListPosition { after: "a".to_owned() });
        let mut wrong = token.clone();
        wrong.replace_range(0..1, "f");
        for garbage in ["", "0", "zz", "+1", "é", &token[2..], &wrong, &format!("{token}00")] {
            assert_eq!(decode::<ListPosition>(7, garbage), Err(NoToken), "{garbage}");
        }
    }
}
