//! Where requests go and as whom: base URL, key, and the headers that every request carries.

use std::fmt;
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};

use super::error::{ApiError, ErrorKind};
use super::secret::{self, ApiKey, Secrets};
use secrecy::zeroize::Zeroize;

/// Where requests go if nothing was said.
pub const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// Header names whose values are credentials: they stand in for the key and are shown nowhere.
const CREDENTIALS: [&str; 4] = ["authorization", "api-key", "x-api-key", "proxy-authorization"];

/// Query parameters whose values are credentials.
const QUERY_CREDENTIALS: [&str; 8] = ["key", "api-key", "api_key", "apikey", "subscription-key", "token", "access_token", "code"];

/// What an [`Endpoint`] is made of.
#[derive(Clone, Default)]
pub struct EndpointOptions {
    /// The service's root, such as [`DEFAULT_BASE_URL`]; a query in it goes along with every request.
    pub base_url: String,
    /// The key; may be absent only if a header carries the credentials, or if it comes later.
    pub api_key: Option<ApiKey>,
    /// Whether each attempt brings its own key, by [`Endpoint::with_key`].
    pub key_comes_later: bool,
    /// Sent as `OpenAI-Organization`.
    pub organization: Option<String>,
    /// Sent as `OpenAI-Project`.
    pub project: Option<String>,
    /// Headers for every request; they win over ours.
    pub headers: Vec<(String, String)>,
    /// Query parameters for every request.
    pub query: Vec<(String, String)>,
}

/// A validated place to send requests to. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    base: Url,
    /// Those that the user gave.
    given: HeaderMap,
    /// Those of every request.
    headers: HeaderMap,
    secrets: Secrets,
    /// The addresses of what is asked for.
    urls: [(&'static str, Url); 3],
}

impl Endpoint {
    /// Checks the parts and puts them together.
    ///
    /// A base URL that is none, a missing key and a header that cannot be sent are configuration errors.
    pub fn new(options: EndpointOptions) -> Result<Endpoint, ApiError> {
        let mut base = base_url(&options.base_url)?;
        if !options.query.is_empty() {
            base.query_pairs_mut().extend_pairs(options.query);
        }
        let mut secrets = Secrets::default();
        for (name, value) in base.query_pairs() {
            if is_credential(&name)
                && let Ok(secret) = ApiKey::new(value.into_owned())
            {
                secrets.add(secret);
            }
        }
        let mut given = HeaderMap::new();
        for (name, value) in [("openai-organization", options.organization), ("openai-project", options.project)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let (name, value) = header(name, &value)?;
                given.insert(name, value);
            }
        }
        for (name, value) in &options.headers {
            let (name, mut checked) = header(name, value)?;
            note_credentials(&name, &mut checked, &mut secrets);
            given.insert(name, checked);
        }
        // The headers have what they need of it.
        options.headers.into_iter().for_each(|(_, mut value)| value.zeroize());
        if options.api_key.is_none() && !options.key_comes_later && !CREDENTIALS.iter().any(|name| given.contains_key(*name)) {
            return Err(secret::missing());
        }
        // The key's, then the user's over them.
        let mut headers = HeaderMap::with_capacity(given.len() + 12);
        headers.extend(given.clone());
        if let Some(bearer) = options.api_key.as_ref().and_then(ApiKey::bearer) {
            headers.entry(AUTHORIZATION).or_insert(bearer);
        }
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        if let Some(key) = options.api_key {
            secrets.add(key);
        }
        let urls = ["chat/completions", "embeddings", "models"].map(|path| (path, under(&base, path)));
        Ok(Endpoint(Arc::new(Inner { base, given, headers, secrets, urls })))
    }

    /// The same place asked with another key, unless a header says who asks.
    pub fn with_key(&self, key: ApiKey) -> Endpoint {
        let mut inner = (*self.0).clone();
        if !inner.given.contains_key(AUTHORIZATION)
            && let Some(bearer) = key.bearer()
        {
            inner.headers.insert(AUTHORIZATION, bearer);
        }
        inner.secrets.add(key);
        Endpoint(Arc::new(inner))
    }

    /// Whether both ask with one key.
    pub(super) fn has_key_of(&self, other: &Endpoint) -> bool {
        self.headers().get(AUTHORIZATION) == other.headers().get(AUTHORIZATION)
    }

    /// Whether both are on one server, where one's credentials may go to the other.
    pub fn has_origin_of(&self, other: &Endpoint) -> bool {
        self.0.base.origin() == other.0.base.origin()
    }

    /// The address of a path under the base URL, with the base URL's query.
    pub fn url(&self, path: &str) -> Url {
        let known = self.0.urls.iter().find(|(known, _)| *known == path);
        known.map_or_else(|| under(&self.0.base, path), |(_, url)| url.clone())
    }

    /// The base URL as errors show it: without its query.
    pub fn shown(&self) -> &str {
        let whole = self.0.base.as_str();
        whole.split('?').next().unwrap_or(whole).trim_end_matches('/')
    }

    /// All that tells it from another place, but for credentials.
    pub fn described(&self) -> Vec<(String, String)> {
        let query = self.0.base.query_pairs().filter(|(name, _)| !is_credential(name));
        let headers = self.0.given.iter().filter(|(_, value)| !value.is_sensitive());
        let mut parts = vec![("url".to_owned(), self.shown().to_owned())];
        parts.extend(query.map(|(name, value)| (format!("?{name}"), value.into_owned())));
        parts.extend(headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())));
        parts.sort();
        parts
    }

    /// Whether the base URL is a host alone.
    pub fn is_root(&self) -> bool {
        self.0.base.path() == "/"
    }

    /// `host:port`.
    pub fn place(&self) -> String {
        let host = self.0.base.host_str().unwrap_or_default();
        match self.0.base.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The headers of every request.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }
}

fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/')));
    url
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("base_url", &self.shown()).finish_non_exhaustive()
    }
}

/// Whether the values of a query parameter are credentials.
pub(super) fn is_credential(parameter: &str) -> bool {
    QUERY_CREDENTIALS.contains(&parameter.to_ascii_lowercase().as_str())
}

/// If the header carries credentials: marks its value as not to be shown, and remembers the secret in it.
pub(crate) fn note_credentials(name: &HeaderName, value: &mut HeaderValue, secrets: &mut Secrets) {
    if !CREDENTIALS.contains(&name.as_str()) {
        return;
    }
    value.set_sensitive(true);
    // `Bearer x`: the secret is what follows the scheme.
    let bare = value.to_str().unwrap_or_default().trim().rsplit(' ').next().unwrap_or_default();
    if let Ok(secret) = ApiKey::new(bare.to_owned()) {
        secrets.add(secret);
    }
}

/// A header that may be sent, or a configuration error that does not show its value.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), ApiError> {
    let wrong = |what: String| Err(ApiError::new(ErrorKind::Configuration, what));
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return wrong(format!("{name:?} is no name of an HTTP header: letters, digits and - make one, as in \"X-Team\""));
    };
    if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&parsed) {
        return wrong(format!("the header {name:?} is set by the client itself; leave it out"));
    }
    match HeaderValue::from_str(value) {
        Ok(value) => Ok((parsed, value)),
        Err(_) => {
            wrong(format!("the value of the header {name:?} has characters that no header can carry (line breaks, control characters)"))
        }
    }
}

fn base_url(given: &str) -> Result<Url, ApiError> {
    let given = given.trim();
    let wrong = |what: &str, example: &str| {
        // A key that was passed in the wrong place must not end up in a log.
        let secret = given.starts_with("sk-") || given.contains('@');
        let shown = if secret { "(not shown: it seems to hold a secret)".to_owned() } else { format!("{given:?}") };
        Err(ApiError::new(ErrorKind::Configuration, format!("base_url {shown} {what}; give it like {example:?}")))
    };
    if given.is_empty() {
        return wrong("is empty", DEFAULT_BASE_URL);
    }
    let local = format!("http://{given}");
    let scheme_missing = !given.contains("://") && given.contains(['.', ':']) && Url::parse(&local).is_ok_and(|url| url.has_host());
    if scheme_missing {
        return wrong("has no http:// or https:// in front", if given.contains('@') { DEFAULT_BASE_URL } else { &local });
    }
    let Ok(url) = Url::parse(given) else {
        return wrong("is no http(s) URL", DEFAULT_BASE_URL);
    };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return wrong("is no http(s) URL", DEFAULT_BASE_URL);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds a user name or password: send those as an `Authorization` header instead", DEFAULT_BASE_URL);
    }
    if url.fragment().is_some() {
        return wrong("has a #fragment, which no server ever sees", DEFAULT_BASE_URL);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(base_url: &str) -> EndpointOptions {
        EndpointOptions { base_url: base_url.into(), api_key: Some(ApiKey::new("sk-very-secret".into()).unwrap()), ..Default::default() }
    }

    fn refused(options: EndpointOptions) -> String {
        let error = Endpoint::new(options).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        error.message.clone()
    }

    #[test]
    fn paths_go_under_the_base_url_and_keep_its_query() {
        for base in ["http://h:1/v1", "http://h:1/v1/", " http://h:1/v1 "] {
            assert_eq!(Endpoint::new(options(base)).unwrap().url("/chat/completions").as_str(), "http://h:1/v1/chat/completions");
        }
        let endpoint = Endpoint::new(EndpointOptions { query: vec![("b".into(), "2 3".into())], ..options("https://h/x?a=1") }).unwrap();
        assert_eq!(endpoint.url("embeddings").as_str(), "https://h/x/embeddings?a=1&b=2+3");
        assert_eq!(endpoint.shown(), "https://h/x");
        assert!(!endpoint.is_root() && Endpoint::new(options("http://h/")).unwrap().is_root());
        let keyed = Endpoint::new(options("https://h/x?api-version=2024-10-21&Key=abcd%2Fefgh")).unwrap();
        assert_eq!(keyed.secrets().scrub("2024-10-21 abcd/efgh abcd%2Fefgh"), "2024-10-21 [redacted] [redacted]");
        assert_eq!(endpoint.place(), "h:443");
        assert_eq!(Endpoint::new(options("http://h")).unwrap().url("a").as_str(), "http://h/a");
    }

    #[test]
    fn a_wrong_base_url_is_named_with_an_example() {
        for (given, example) in [
            ("localhost:8000/v1", "http://localhost:8000/v1"),
            ("api.example.com/v1", "http://api.example.com/v1"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("nonsense", DEFAULT_BASE_URL),
            ("ftp://h/v1", DEFAULT_BASE_URL),
            ("http://", DEFAULT_BASE_URL),
            ("http://h:99999/", DEFAULT_BASE_URL),
            ("http://h/#x", DEFAULT_BASE_URL),
            ("", DEFAULT_BASE_URL),
        ] {
            let message = refused(options(given));
            assert!(message.contains(example), "{message}");
            assert!(given.is_empty() || message.contains(given), "{message}");
        }
    }

    #[test]
    fn secrets_in_the_base_url_are_refused_unseen() {
        for given in ["https://user:pa55word@h/v1", "sk-pa55word", "user:pa55word@h/v1"] {
            let message = refused(options(given));
            assert!(!message.contains("pa55word"), "{message}");
        }
    }

    #[test]
    fn a_missing_key_says_where_to_put_one() {
        let message = refused(EndpointOptions { api_key: None, ..options("http://h") });
        assert!(message.contains("api_key=") && message.contains("OPENAI_API_KEY"), "{message}");
    }

    #[test]
    fn a_credentials_header_replaces_the_key() {
        let headers = vec![("Authorization".into(), "Basic dTpwYTU1d29yZA==".into())];
        for api_key in [None, options("").api_key] {
            let endpoint = Endpoint::new(EndpointOptions { api_key, headers: headers.clone(), ..options("http://h") }).unwrap();
            assert_eq!(endpoint.headers().get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), ["Basic dTpwYTU1d29yZA=="]);
            assert_eq!(endpoint.secrets().scrub("dTpwYTU1d29yZA=="), "[redacted]");
            assert!(!format!("{endpoint:?} {:?}", endpoint.headers()).contains("dTpw"));
        }
    }

    #[test]
    fn headers_that_cannot_be_sent_are_refused_without_their_value() {
        for (name, value) in [("x y", "v"), ("x", "secret\r\nx: y"), ("Content-Length", "3")] {
            let message = refused(EndpointOptions { headers: vec![(name.into(), value.into())], ..options("http://h") });
            assert!(message.contains(name) && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn organization_and_project_are_sent() {
        let with = EndpointOptions { organization: Some("org-1".into()), project: Some("p-1".into()), ..options("http://h") };
        let endpoint = Endpoint::new(with).unwrap();
        let headers = endpoint.headers();
        assert_eq!(headers["openai-organization"], "org-1");
        assert_eq!(headers["openai-project"], "p-1");
        assert_eq!(headers["authorization"], "Bearer sk-very-secret");
        assert!(headers["authorization"].is_sensitive());
    }
}
