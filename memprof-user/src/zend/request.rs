//! The request that a live php-fpm worker serves.
//!
//! Names of headers and of query parameters are read, their values are not: what is read may end
//! up in a log. The exceptions are what makes the URL: host, scheme and path.

use std::collections::HashMap;

use super::ZendError;
use super::memory::{Bytes, MemoryError, at};
use super::values::{LONGEST_STRING, Reader};

/// Most FastCGI variables read: servers send 20 to 60.
const MOST_VARIABLES: usize = 1024;
/// Most query parameters that are named.
const MOST_QUERY_KEYS: usize = 256;
/// FastCGI variables whose values are read.
const WITH_VALUE: [&str; 5] = [
    "HTTPS",
    "HTTP_HOST",
    "QUERY_STRING",
    "REQUEST_SCHEME",
    "REQUEST_URI",
];

/// The request being served.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: Option<String>,
    /// The path of the URI, without the query.
    pub path: Option<String>,
    /// Names of the query's parameters, in their order; `filter[name]=x` is `filter`.
    pub query_keys: Vec<String>,
    /// Names of the HTTP headers, in lower case with hyphens (`x-forwarded-for`), sorted.
    pub header_names: Vec<String>,
    /// The `Host` header.
    pub host: Option<String>,
    /// `https` or `http`, as far as the web server told.
    pub scheme: Option<String>,
    /// The script's path.
    pub script: Option<String>,
    /// When the request began, in Unix seconds; `None` until the script asks for the time.
    pub started: Option<f64>,
}

impl Request {
    /// Scheme, host and path, without the query; `None` where host or path is not known.
    pub fn url(&self) -> Option<String> {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let host = self.host.as_deref()?;
        let path = self.path.as_deref()?;
        Some(format!("{scheme}://{host}{path}"))
    }
}

/// The FastCGI variables of a request: every name, and the values of [`WITH_VALUE`].
#[derive(Default)]
struct Variables {
    names: Vec<String>,
    values: HashMap<String, String>,
}

impl Variables {
    fn value(&self, name: &str) -> Option<String> {
        self.values
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    }

    fn scheme(&self) -> Option<String> {
        self.value("REQUEST_SCHEME").or_else(|| {
            let is_tls = self.value("HTTPS")? != "off";
            Some(if is_tls { "https" } else { "http" }.to_owned())
        })
    }

    fn header_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .names
            .iter()
            .filter_map(|name| name.strip_prefix("HTTP_"))
            .map(|name| name.to_ascii_lowercase().replace('_', "-"))
            .collect();
        names.sort();
        names
    }
}

/// Whether `SG(sapi_started)` says that a request is being served.
pub(super) fn in_request(reader: Reader<'_>, sapi: u64) -> Result<bool, MemoryError> {
    let started = reader
        .memory
        .u8(at(sapi, reader.layout.sapi.sapi_started))?;
    Ok(started != 0)
}

/// Reads the request; `None` for an idle worker, whose pointers are stale.
///
/// `sapi_module` is where the process has its struct of that name; without it the process is taken for
/// php-fpm.
pub(super) fn request(
    reader: Reader<'_>,
    sapi: u64,
    sapi_module: Option<u64>,
) -> Result<Option<Request>, ZendError> {
    if !in_request(reader, sapi)? {
        return Ok(None);
    }
    let layout = reader.layout.sapi;
    let text = |offset| reader.c_string(reader.memory.u64(at(sapi, offset))?);
    let started = reader.memory.u64(at(sapi, layout.global_request_time))?;
    let variables = match sapi_module {
        // Elsewhere server_context is something else: anything at all in a php of the command line.
        Some(module) if !is_fastcgi(reader, module)? => Variables::default(),
        _ => variables(reader, sapi)?,
    };
    let query = match variables.value("QUERY_STRING") {
        Some(query) => Some(query),
        None => text(layout.query_string)?,
    };
    let uri = match variables.value("REQUEST_URI") {
        Some(uri) => Some(uri),
        None => text(layout.request_uri)?,
    };
    Ok(Some(Request {
        method: text(layout.request_method)?,
        path: uri.map(|uri| path_of(&uri)),
        query_keys: query_keys(query.as_deref().unwrap_or_default()),
        header_names: variables.header_names(),
        host: variables.value("HTTP_HOST"),
        scheme: variables.scheme(),
        script: text(layout.path_translated)?,
        started: Some(f64::from_bits(started)).filter(|time| *time > 0.0),
    }))
}

/// Whether the process is php-fpm; `sapi_module_struct` begins with its name, a `char *` (7.4 to 8.6).
fn is_fastcgi(reader: Reader<'_>, sapi_module: u64) -> Result<bool, MemoryError> {
    let name = reader.memory.u64(sapi_module)?;
    Ok(reader.c_string(name)?.as_deref() == Some("fpm-fcgi"))
}

/// Walks php-fpm's list of FastCGI variables, newest first.
fn variables(reader: Reader<'_>, sapi: u64) -> Result<Variables, ZendError> {
    let layout = reader.layout.fcgi;
    let context = reader
        .memory
        .u64(at(sapi, reader.layout.sapi.server_context))?;
    let mut variables = Variables::default();
    if context == 0 {
        return Ok(variables);
    }
    let mut next = reader.memory.u64(at(context, layout.newest_variable))?;
    while next != 0 {
        if variables.names.len() >= MOST_VARIABLES {
            return Err(ZendError::Inconsistent {
                what: "the list of FastCGI variables does not end",
                address: context,
            });
        }
        let bucket = Bytes::read(reader.memory, next, layout.bucket as usize)?;
        let name = reader.text(
            "fcgi_hash_bucket.var_len",
            next,
            bucket.u64(layout.name)?,
            u64::from(bucket.u32(layout.name_len)?),
        )?;
        // A variable that was set to nothing is deleted.
        let value = bucket.u64(layout.value)?;
        if value != 0 {
            if WITH_VALUE.contains(&name.as_str()) {
                let length = u64::from(bucket.u32(layout.value_len)?).min(LONGEST_STRING);
                let value = reader.text("fcgi_hash_bucket.val_len", next, value, length)?;
                variables.values.insert(name.clone(), value);
            }
            variables.names.push(name);
        }
        next = bucket.u64(layout.older)?;
    }
    Ok(variables)
}

fn path_of(uri: &str) -> String {
    uri.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// The names of a query's parameters, each once, without the `[...]` of arrays.
fn query_keys(query: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for pair in query.split('&').take(MOST_QUERY_KEYS) {
        let name = decoded(pair.split('=').next().unwrap_or_default());
        let name = name.split('[').next().unwrap_or_default();
        if !name.is_empty() && !keys.iter().any(|key| key == name) {
            keys.push(name.to_owned());
        }
    }
    keys
}

/// Undoes the URL encoding of a parameter's name; what is no encoding stays as it is.
fn decoded(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let escaped = (*byte == b'%')
            .then(|| bytes.get(index + 1..index + 3))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (escaped, byte) {
            (Some(escaped), _) => {
                plain.push(escaped);
                index += 2;
            }
            (None, b'+') => plain.push(b' '),
            (None, byte) => plain.push(*byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::testing::{FakeMemory, Image};
    use super::*;

    /// Puts a newest variable into the list of FastCGI variables.
    fn variable(memory: &mut FakeMemory, older: u64, name: &str, value: &str) -> u64 {
        let bucket = memory.room(48);
        let (name_at, value_at) = (memory.c_string(name), memory.c_string(value));
        memory.put_u32(bucket + 4, name.len() as u32);
        memory.put_u64(bucket + 8, name_at);
        memory.put_u32(bucket + 16, value.len() as u32);
        memory.put_u64(bucket + 24, value_at);
        memory.put_u64(bucket + 40, older);
        bucket
    }

    /// A worker in a request with these variables.
    fn worker(variables: &[(&str, &str)]) -> Image {
        let mut image = Image::new("8.2.36");
        let sapi = image.globals.sapi.address;
        let memory = &mut image.memory;
        let newest = variables.iter().fold(0, |older, (name, value)| {
            variable(memory, older, name, value)
        });
        let context = memory.room(9344);
        memory.put_u64(context + 9320, newest);
        let method = memory.c_string("POST");
        let script = memory.c_string("/srv/app/public/index.php");
        memory.put_u64(sapi, context);
        memory.put_u64(sapi + 8, method);
        memory.put_u64(sapi + 40, script);
        memory.put(sapi + 436, &[1]);
        memory.put_u64(sapi + 440, 1_700_000_000.25_f64.to_bits());
        image
    }

    fn read(image: &Image) -> Result<Option<Request>, ZendError> {
        let reader = Reader {
            memory: &image.memory,
            layout: &image.layout,
        };
        request(reader, image.globals.sapi.address, None)
    }

    #[test]
    fn a_request_is_read_without_values() -> Result<(), ZendError> {
        let image = worker(&[
            (
                "REQUEST_URI",
                "/admin/users?page=2&filter%5Bname%5D=secret&filter[age]=3",
            ),
            (
                "QUERY_STRING",
                "page=2&filter%5Bname%5D=secret&filter[age]=3",
            ),
            ("HTTP_HOST", "depot.example"),
            ("HTTP_X_FORCE_MEMORY_PROFILE", "secret"),
            ("HTTPS", "on"),
        ]);
        let request = read(&image)?.expect("a request is being served");
        assert_eq!(request.method.as_deref(), Some("POST"));
        assert_eq!(request.query_keys, ["page", "filter"]);
        assert_eq!(request.header_names, ["host", "x-force-memory-profile"]);
        assert_eq!(
            request.url().as_deref(),
            Some("https://depot.example/admin/users")
        );
        assert_eq!(request.script.as_deref(), Some("/srv/app/public/index.php"));
        assert_eq!(request.started, Some(1_700_000_000.25));
        assert!(!format!("{request:?}").contains("secret"));
        Ok(())
    }

    #[test]
    fn what_is_not_php_fpm_has_no_fastcgi_variables() -> Result<(), ZendError> {
        for (sapi, path) in [("fpm-fcgi", Some("/a")), ("cli", None)] {
            let mut image = worker(&[("REQUEST_URI", "/a?b")]);
            let name = image.memory.c_string(sapi);
            let module = image.memory.room(8);
            image.memory.put_u64(module, name);
            let reader = Reader {
                memory: &image.memory,
                layout: &image.layout,
            };
            let found = request(reader, image.globals.sapi.address, Some(module))?;
            assert_eq!(found.expect("in a request").path.as_deref(), path, "{sapi}");
        }
        Ok(())
    }

    #[test]
    fn an_idle_worker_serves_nothing() -> Result<(), ZendError> {
        let mut image = worker(&[("REQUEST_URI", "/stale")]);
        image.memory.put(image.globals.sapi.address + 436, &[0]);
        assert_eq!(read(&image)?, None);
        Ok(())
    }

    #[test]
    fn a_list_of_variables_that_leads_back_to_itself_ends() {
        let mut image = worker(&[("A", "1")]);
        let context = image.memory.u64(image.globals.sapi.address).unwrap_or(0);
        let newest = image.memory.u64(context + 9320).unwrap_or(0);
        image.memory.put_u64(newest + 40, newest);
        assert!(matches!(read(&image), Err(ZendError::Inconsistent { .. })));
    }

    #[test]
    fn query_keys_survive_bad_encoding() {
        assert_eq!(
            query_keys("a%zz=1&b%4=2&c+d&&=5&%C3%A9=1&a%zz"),
            ["a%zz", "b%4", "c d", "é"]
        );
        assert!(query_keys("").is_empty());
    }
}
