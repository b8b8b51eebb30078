//! The tokens that a request may use, cheaply: those of its text, and of the longest answer where that is said.

use super::order::Order;
use super::route::Leg;

/// A rule of thumb for English; other languages and code have more tokens for their characters, and more bytes too.
const BYTES_A_TOKEN: usize = 4;
/// Of a picture or a sound in base64 the length says nothing of its tokens: about what a picture costs at most places.
const ATTACHMENT: usize = 1000;
/// How one begins, as a text in JSON.
const BEGIN: &[u8] = b"\"data:";

/// The tokens that an attempt at that leg may use.
pub fn tokens(order: &Order, leg: &Leg) -> u64 {
    let number = |wanted: &str| {
        let (_, value) = order.params_at(leg).find(|(name, _)| &**name == wanted)?;
        std::str::from_utf8(value).ok()?.parse::<u64>().ok()
    };
    let most = number("max_completion_tokens").or_else(|| number("max_tokens")).unwrap_or(0);
    let answers = number("n").unwrap_or(1).max(1);
    of_text(&order.content).saturating_add(most.saturating_mul(answers))
}

fn of_text(content: &[u8]) -> u64 {
    let (mut bytes, mut attachments, mut rest) = (0, 0, content);
    while let Some(at) = memchr::memmem::find(rest, BEGIN) {
        bytes += at;
        let inside = &rest[at + 1..];
        let end = memchr::memchr(b'"', inside).map_or(inside.len(), |end| end + 1);
        attachments += 1;
        rest = &inside[end..];
    }
    bytes += rest.len();
    (bytes.div_ceil(BYTES_A_TOKEN) + attachments * ATTACHMENT) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_are_a_token_and_a_picture_is_a_thousand() {
        assert_eq!(of_text(b""), 0);
        assert_eq!(of_text(b"[\"12345\"]"), 3);
        let picture = format!("[{{\"url\":\"data:image/png;base64,{}\"}}]", "A".repeat(100_000));
        assert_eq!(of_text(picture.as_bytes()), 1003);
        assert_eq!(of_text(b"\"data:"), 1000);
    }
}
