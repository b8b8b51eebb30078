//! Who may see the page. On the loopback everybody on this machine, but not a web page that has had its own name lead here
//! (DNS rebinding); elsewhere, whoever knows the token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Uri;
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap};
use percent_encoding::percent_decode_str;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use std::io;
use std::net::IpAddr;

/// The shortest token that is taken.
pub const SHORTEST: usize = 16;

/// What is asked of a request.
pub enum Guard {
    /// That it is addressed to this machine by an address, or as `localhost`.
    Loopback,
    /// That it knows the token.
    Token(Box<Token>),
}

/// What a request may do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// See what it asks for.
    Passes,
    /// Come again with this cookie, without the token in the address.
    Cookie(String),
    /// Say the token first.
    Stranger,
    /// Nothing: it was meant for another host. What is wrong.
    Misled(&'static str),
}

/// A token, and the cookie that stands for it. Its `Debug` shows neither.
pub struct Token {
    text: SecretString,
    /// Another in each process: what is compared are the codes of what is compared, which tells nothing of where they differ.
    key: hmac::Key,
    code: hmac::Tag,
    name: String,
    cookie: String,
    cookie_code: hmac::Tag,
}

impl Token {
    /// This one, or one that is made. `port` tells the cookies of two dashboards of one host apart: cookies know no ports.
    pub fn new(given: Option<String>, port: u16) -> io::Result<Token> {
        let chance = || {
            let mut bytes = [0; 32];
            let failed = |_| io::Error::other("the system gives no random bytes");
            SystemRandom::new().fill(&mut bytes).map(|()| bytes).map_err(failed)
        };
        let text = given.map_or_else(|| chance().map(|bytes| URL_SAFE_NO_PAD.encode(bytes)), Ok)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &chance()?);
        // Made from the token, so that it holds when a process comes again with the same one; and not the token, since a
        // browser sends it to whatever else listens on this host.
        let of_token = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let cookie = URL_SAFE_NO_PAD.encode(hmac::sign(&of_token, b"seawall dashboard"));
        let (code, cookie_code) = (hmac::sign(&key, text.as_bytes()), hmac::sign(&key, cookie.as_bytes()));
        Ok(Token { text: text.into(), key, code, name: format!("seawall-dashboard-{port}"), cookie, cookie_code })
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    fn is(&self, given: &[u8]) -> bool {
        hmac::verify(&self.key, given, self.code.as_ref()).is_ok()
    }

    fn is_cookie(&self, given: &[u8]) -> bool {
        hmac::verify(&self.key, given, self.cookie_code.as_ref()).is_ok()
    }

    fn verdict(&self, uri: &Uri, headers: &HeaderMap) -> Verdict {
        // With the page alone: elsewhere nobody would take it out of the address again.
        if uri.path() == "/"
            && let Some(given) = queried(uri.query().unwrap_or(""))
        {
            let set = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", self.name, self.cookie);
            return if self.is(&given) { Verdict::Cookie(set) } else { Verdict::Stranger };
        }
        let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let bearer = bearer.filter(|value| value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer "));
        if bearer.is_some_and(|value| self.is(value[7..].trim_ascii())) {
            return Verdict::Passes;
        }
        let cookies = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let mine = cookies.filter_map(|cookie| cookie.trim_ascii().strip_prefix(self.name.as_bytes())?.strip_prefix(b"="));
        // Another program of this host may have set one of that name beside ours.
        if mine.take(8).any(|cookie| self.is_cookie(cookie)) { Verdict::Passes } else { Verdict::Stranger }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

fn queried(query: &str) -> Option<Vec<u8>> {
    let given = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    Some(percent_decode_str(given).collect())
}

/// Whether a name leads to this machine whatever a name server says: an address, or `localhost`.
fn is_own(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost")
}

impl Guard {
    /// What becomes of a request.
    pub fn verdict(&self, uri: &Uri, headers: &HeaderMap) -> Verdict {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(Ok(host)), None) = (hosts.next().map(|h| h.to_str()), hosts.next()) else {
            return Verdict::Misled("A request has to have one Host header.");
        };
        match self {
            // A page that was misled here knows no token, and its browser has no cookie for the name it came by.
            Guard::Token(token) => token.verdict(uri, headers),
            Guard::Loopback if is_own(host) && uri.authority().is_none_or(|it| is_own(it.as_str())) => Verdict::Passes,
            Guard::Loopback => Verdict::Misled(
                "This dashboard is for this machine: open it as http://127.0.0.1 or http://localhost, with its port. To have it \
                 answer to other names, as behind a proxy, start it with a token: seawall.dashboard.serve(token=\"...\").",
            ),
        }
    }
}
