//! The page: one file, with its style and its script in it, and the policy that allows these and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderValue;
use ring::digest::{SHA256, digest};
use std::sync::LazyLock;

const HTML: &str = include_str!("page/page.html");
const TOKEN: &str = include_str!("page/token.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = concat!(
    "\"use strict\";\n(() => {\n",
    include_str!("page/elements.js"),
    include_str!("page/charts.js"),
    include_str!("page/tables.js"),
    include_str!("page/main.js"),
    "})();\n"
);

/// A document and its `Content-Security-Policy`.
pub struct Page {
    pub html: Bytes,
    pub policy: HeaderValue,
}

fn allowed(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

fn made(html: &str) -> Page {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
        allowed(SCRIPT),
        allowed(STYLE)
    );
    Page {
        html: html.replace("{STYLE}", STYLE).replace("{SCRIPT}", SCRIPT).into(),
        // Letters of base64 and what is written above.
        policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'")),
    }
}

/// The dashboard.
pub static DASHBOARD: LazyLock<Page> = LazyLock::new(|| made(HTML));
/// Where the token is asked for.
pub static ASKING: LazyLock<Page> = LazyLock::new(|| made(TOKEN));
