//! What of a request's URI may be recorded: the path and the parameters' names.

use crate::profile::RequestInfo;

/// Names of parameters kept of one query string.
const MOST_KEYS: usize = 50;

/// Takes a request's raw parts; `truncated` says that the URI may go on.
#[must_use]
pub fn request_info(
    method: &str,
    uri: &str,
    truncated: bool,
    scheme: &str,
    host: &str,
    script: &str,
) -> RequestInfo {
    let uri = uri.split('#').next().unwrap_or_default();
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, query),
        None => (uri, ""),
    };
    let mut keys: Vec<&str> = query.split('&').map(key).collect();
    if truncated {
        // Its name may be cut, or what is taken for a name may be a value.
        keys.pop();
    }
    keys.retain(|key| !key.is_empty());
    keys.truncate(MOST_KEYS);
    let uri = if keys.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", keys.join("&"))
    };
    RequestInfo {
        method: method.to_owned(),
        uri,
        url: format!("{scheme}://{host}{path}"),
        path: path.to_owned(),
        script: script.to_owned(),
    }
}

/// `filter` of `filter[name]=x`; nothing of a parameter without `=`, which may be a value.
fn key(parameter: &str) -> &str {
    match parameter.split_once('=') {
        Some((name, _)) => name.split(['[', '%']).next().unwrap_or_default(),
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(uri: &str, truncated: bool) -> String {
        request_info("GET", uri, truncated, "http", "localhost", "/index.php").uri
    }

    #[test]
    fn values_are_left_out() {
        assert_eq!(uri("/depot?page=2&q=secret", false), "/depot?page&q");
        assert_eq!(uri("/depot?filter[name]=secret", false), "/depot?filter");
        assert_eq!(
            uri("/depot?filter%5Bname%5D=secret", false),
            "/depot?filter"
        );
        assert_eq!(uri("/depot?secret", false), "/depot");
        assert_eq!(uri("/depot#secret", false), "/depot");
        assert_eq!(uri("/depot", false), "/depot");
    }

    #[test]
    fn a_cut_parameter_is_left_out() {
        assert_eq!(uri("/depot?page=2&sec", true), "/depot?page");
    }

    #[test]
    fn the_url_has_no_query() {
        let info = request_info("GET", "/depot?page=2", false, "https", "depot.example", "");
        assert_eq!(info.url, "https://depot.example/depot");
    }
}
