//! A request's FastCGI variables.

use memprof_ebpf::{Text, Worker};

use crate::{read::read, target::is_text};

/// `SG(request_info).request_method`, in every version.
pub const REQUEST_METHOD: u64 = 8;
/// `fcgi_request.env` (main/fastcgi.c, 7.4 to 8.6): a hash table of 128 chains comes first.
const FCGI_ENVIRONMENT: u64 = 8296;
/// `FCGI_HASH_TABLE_SIZE`
const FCGI_CHAINS: u64 = 128;
/// Links of a chain that are followed.
const FCGI_CHAIN_LIMIT: u32 = 16;

pub static REQUEST_URI: Text = Text::known(b"REQUEST_URI");
pub static HTTP_HOST: Text = Text::known(b"HTTP_HOST");
pub static HTTPS: Text = Text::known(b"HTTPS");

/// Where a variable's value is and how long, as `fcgi_hash_get` of main/fastcgi.c looks it up.
#[inline(never)]
pub fn environment(worker: &mut Worker, request: u64, name: &Text) -> Option<(u64, u64)> {
    if request == 0 {
        return None;
    }
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
            return Some((value, value_length & 0xffff_ffff));
        }
        bucket = next;
    }
    None
}
