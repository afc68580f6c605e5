//! A small FastCGI client: one request over a unix socket, as a web server sends it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// Longer than any request of the tests; the deepest recursion takes some 10 s.
const TIMEOUT: Duration = Duration::from_secs(120);

// Record types and sizes, from the FastCGI specification 1.0.
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const RESPONDER: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
const LARGEST_CONTENT: usize = 65_528;

/// A request to one script.
#[derive(Clone, Debug)]
pub struct Request {
    method: &'static str,
    script: String,
    uri: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    /// A GET of `uri` (path and query), answered by the script at `script`, a path as php-fpm sees it.
    pub fn get(script: impl Into<String>, uri: impl Into<String>) -> Self {
        Self {
            method: "GET",
            script: script.into(),
            uri: uri.into(),
            headers: BTreeMap::new(),
            body: Vec::new(),
        }
    }

    /// A POST of a form's fields, already encoded as `a=1&b=2`.
    pub fn post(script: impl Into<String>, uri: impl Into<String>, form: &str) -> Self {
        Self {
            method: "POST",
            body: form.into(),
            ..Self::get(script, uri)
        }
    }

    /// Adds a header, as `X-Bug`.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    /// Sends the request and waits for the whole answer.
    ///
    /// # Errors
    /// When php-fpm does not listen, answers after 120 s or not at all, or closes the connection within the answer.
    pub fn send(&self, socket: &Path) -> Result<Response> {
        let sent = Instant::now();
        self.exchange(socket, sent)
            .with_context(|| format!("{} {} over {}", self.method, self.uri, socket.display()))
    }

    fn exchange(&self, socket: &Path, sent: Instant) -> Result<Response> {
        let mut stream =
            UnixStream::connect(socket).context("php-fpm does not listen on this socket")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut bytes = Vec::new();
        put_record(&mut bytes, BEGIN_REQUEST, &RESPONDER);
        put_stream(&mut bytes, PARAMS, &self.params());
        put_stream(&mut bytes, STDIN, &self.body);
        stream.write_all(&bytes)?;

        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            let mut header = [0; 8];
            stream
                .read_exact(&mut header)
                .context("the answer broke off: the worker died, or took longer than 120 s")?;
            let [_, kind, _, _, high, low, padding, _] = header;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let mut content = vec![0; length + usize::from(padding)];
            stream.read_exact(&mut content)?;
            content.truncate(length);
            match kind {
                STDOUT => out.append(&mut content),
                STDERR => err.append(&mut content),
                END_REQUEST => return Response::parse(&out, &err, sent.elapsed()),
                other => bail!("php-fpm sent a record of type {other}, which no answer holds"),
            }
        }
    }

    fn params(&self) -> Vec<u8> {
        let (path, query) = self.uri.split_once('?').unwrap_or((&self.uri, ""));
        let root = self
            .script
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        let length = self.body.len().to_string();
        let mut params = Vec::new();
        for (name, value) in [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_SOFTWARE", "memprof-tests"),
            ("SERVER_NAME", "localhost"),
            ("SERVER_PORT", "80"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("HTTP_HOST", "localhost"),
            ("REQUEST_METHOD", self.method),
            ("REQUEST_URI", &self.uri),
            ("DOCUMENT_URI", path),
            ("QUERY_STRING", query),
            ("DOCUMENT_ROOT", root),
            ("SCRIPT_FILENAME", &self.script),
            ("SCRIPT_NAME", &self.script[root.len()..]),
        ] {
            put_param(&mut params, name, value);
        }
        if self.method == "POST" {
            put_param(
                &mut params,
                "CONTENT_TYPE",
                "application/x-www-form-urlencoded",
            );
            put_param(&mut params, "CONTENT_LENGTH", &length);
        }
        for (name, value) in &self.headers {
            let name = format!("HTTP_{}", name.to_uppercase().replace('-', "_"));
            put_param(&mut params, &name, value);
        }
        params
    }
}

/// What php-fpm answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status; 200 where the script set none.
    pub status: u16,
    /// Header lines in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What the worker wrote to its error log.
    pub stderr: String,
    /// From before connecting to the answer's last byte.
    pub duration: Duration,
}

impl Response {
    fn parse(out: &[u8], err: &[u8], duration: Duration) -> Result<Self> {
        let Some(end) = out.windows(4).position(|window| window == b"\r\n\r\n") else {
            bail!(
                "the answer has no header: {:?}",
                String::from_utf8_lossy(out)
            );
        };
        let headers: Vec<_> = String::from_utf8_lossy(&out[..end])
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut response = Self {
            status: 200,
            headers,
            body: out[end + 4..].to_vec(),
            stderr: String::from_utf8_lossy(err).into_owned(),
            duration,
        };
        if let Some(status) = response.header("Status") {
            let code = status.split(' ').next().unwrap_or_default();
            response.status = code
                .parse()
                .with_context(|| format!("reading the status {status:?}"))?;
        }
        Ok(response)
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not such JSON; the error shows the body and the worker's error log.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!(
                "status {}, body {:?}, error log {:?}",
                self.status,
                self.text(),
                self.stderr
            )
        })
    }
}

/// The cookies of one browser.
#[derive(Clone, Debug, Default)]
pub struct Cookies(BTreeMap<String, String>);

impl Cookies {
    /// Keeps the cookies that an answer sets.
    pub fn keep(&mut self, response: &Response) {
        for (name, value) in &response.headers {
            if !name.eq_ignore_ascii_case("Set-Cookie") {
                continue;
            }
            let pair = value.split(';').next().unwrap_or_default();
            if let Some((cookie, value)) = pair.split_once('=') {
                self.0.insert(cookie.to_owned(), value.to_owned());
            }
        }
    }

    /// Adds them to a request.
    pub fn send_with(&self, request: Request) -> Request {
        if self.0.is_empty() {
            return request;
        }
        let pairs: Vec<_> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        request.header("Cookie", pairs.join("; "))
    }
}

/// A stream of records: its content in parts, closed by an empty one.
fn put_stream(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    for part in content.chunks(LARGEST_CONTENT) {
        put_record(bytes, kind, part);
    }
    put_record(bytes, kind, &[]);
}

fn put_record(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let length =
        u16::try_from(content.len()).expect("a record's content is cut at LARGEST_CONTENT");
    let [high, low] = length.to_be_bytes();
    bytes.extend([1, kind, 0, 1, high, low, 0, 0]);
    bytes.extend(content);
}

fn put_param(bytes: &mut Vec<u8>, name: &str, value: &str) {
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short @ 0..=127) => bytes.push(short),
            _ => {
                let long = u32::try_from(length).expect("a parameter is shorter than 2 GiB");
                bytes.extend((long | 0x8000_0000).to_be_bytes());
            }
        }
    }
    bytes.extend(name.as_bytes());
    bytes.extend(value.as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_status_headers_and_body() {
        let raw = b"Status: 403 Forbidden\r\nSet-Cookie: a=1; path=/\r\n\r\nno";
        let response = Response::parse(raw, b"warning", Duration::ZERO).unwrap();
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
        assert_eq!(response.header("set-cookie"), Some("a=1; path=/"));
        assert_eq!(response.stderr, "warning");
    }

    #[test]
    fn without_a_status_line_it_is_200() {
        let response = Response::parse(b"X: y\r\n\r\n", b"", Duration::ZERO).unwrap();
        assert_eq!(response.status, 200);
    }

    #[test]
    fn an_answer_without_header_is_refused() {
        assert!(Response::parse(b"broken", b"", Duration::ZERO).is_err());
    }

    #[test]
    fn cookies_are_sent_back() {
        let raw = b"Set-Cookie: a=1; path=/\r\nSet-Cookie: b=2\r\n\r\n";
        let mut cookies = Cookies::default();
        cookies.keep(&Response::parse(raw, b"", Duration::ZERO).unwrap());
        let request = cookies.send_with(Request::get("/srv/index.php", "/"));
        assert_eq!(request.headers["Cookie"], "a=1; b=2");
    }

    #[test]
    fn long_parameters_have_four_byte_lengths() {
        let mut bytes = Vec::new();
        put_param(&mut bytes, "A", &"x".repeat(300));
        assert_eq!(bytes[..6], [1, 0x80, 0, 1, 44, b'A']);
    }

    #[test]
    fn a_long_stream_is_cut_into_records() {
        let mut bytes = Vec::new();
        put_stream(&mut bytes, STDIN, &vec![0; LARGEST_CONTENT + 1]);
        assert_eq!(bytes.len(), LARGEST_CONTENT + 1 + 3 * 8);
    }
}
