//! A request's FastCGI variables.

use memprof_ebpf::{Text, Worker};

use crate::{maps::TARGETING, read::read, target::is_text};

/// `SG(request_info).request_method`, in every version.
pub const REQUEST_METHOD: u64 = 8;
/// `fcgi_request.env` (main/fastcgi.c, 7.4 to 8.6): a hash table of 128 chains comes first.
const FCGI_ENVIRONMENT: u64 = 8296;
/// `FCGI_HASH_TABLE_SIZE`
const FCGI_CHAINS: u64 = 128;
/// Links of a chain that are followed.
const FCGI_CHAIN_LIMIT: u32 = 16;

static REQUEST_URI: Text = Text::known(b"REQUEST_URI");
static HTTP_HOST: Text = Text::known(b"HTTP_HOST");
static HTTPS: Text = Text::known(b"HTTPS");

/// A variable that is looked for.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    RequestUri,
    HttpHost,
    Https,
    /// The header that forces a request to be recorded.
    Forcing,
}

/// Where a variable's value is and how long.
#[inline(always)]
pub fn environment(worker: &mut Worker, request: u64, variable: Variable) -> Option<(u64, u64)> {
    if request == 0 || find_variable(worker, request, variable as u32) == 0 {
        return None;
    }
    let [value, length] = worker.state.variable;
    Some((value, length))
}

/// Puts into the worker's state where a variable's value is and how long, as `fcgi_hash_get` of
/// main/fastcgi.c looks it up; 1 if there is one.
///
/// A global function (see [`crate::stack::identify`]).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_variable(worker: *mut Worker, request: u64, variable: u32) -> u32 {
    // SAFETY: the callers pass the map's value; the verifier checks it.
    let Some(worker) = (unsafe { worker.as_mut() }) else {
        return 0;
    };
    let name = match variable {
        known if known == Variable::RequestUri as u32 => &REQUEST_URI,
        known if known == Variable::HttpHost as u32 => &HTTP_HOST,
        known if known == Variable::Https as u32 => &HTTPS,
        _ => match TARGETING.get(0) {
            Some(targeting) => &targeting.header,
            None => return 0,
        },
    };
    match find(worker, request, name) {
        Some(found) => {
            worker.state.variable = found;
            1
        }
        None => 0,
    }
}

#[inline(always)]
fn find(worker: &mut Worker, request: u64, name: &Text) -> Option<[u64; 2]> {
    let chain = request + FCGI_ENVIRONMENT + (u64::from(name.hash) & (FCGI_CHAINS - 1)) * 8;
    let mut bucket = read::<u64>(worker, chain)?;
    for _ in 0..FCGI_CHAIN_LIMIT {
        if bucket == 0 {
            break;
        }
        // hash_value and var_len, var, val_len, val, next
        let [start, variable, value_length, value, next] = read::<[u64; 5]>(worker, bucket)?;
        let is_like = start == u64::from(name.hash) | u64::from(name.length) << 32;
        // A variable that was deleted has no value.
        if is_like && value != 0 && is_text(worker, variable, name) {
            return Some([value, value_length & 0xffff_ffff]);
        }
        bucket = next;
    }
    None
}
