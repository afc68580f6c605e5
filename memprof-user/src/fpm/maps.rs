//! What is mapped where in a process.
//!
//! Read by hand and not through the procfs crate: that one gives up the whole list at the first name
//! that is not UTF-8, and panics on a mapped file named `/SYSV`; both are in the target's hands.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{FpmError, ProcessId};

/// No more of /proc/PID/maps is read; 65,530 mappings (the kernel's default bound) of usual names fit.
const MAX_MAPS: u64 = 16 << 20;

/// One mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses in the process.
    pub addresses: Range<u64>,
    /// What is in the file at the first address, as an offset in bytes.
    pub offset: u64,
    /// Whether its instructions can run.
    pub executable: bool,
    /// Whether a write is seen by the other processes that map it.
    pub shared: bool,
    /// The file as the kernel names it, ` (deleted)` included; `[heap]` and the like; empty if anonymous.
    pub name: PathBuf,
}

/// The mappings of a process at one moment, in the order of their addresses.
#[derive(Clone, Debug)]
pub struct Mappings {
    process: ProcessId,
    mappings: Vec<Mapping>,
}

/// A place in a mapped file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFile {
    /// A path under /proc/PID that opens the very file that is mapped.
    pub path: PathBuf,
    /// The file as the kernel names it in /proc/PID/maps.
    pub name: PathBuf,
    /// The place as an offset in the file, in bytes.
    pub offset: u64,
}

impl Mappings {
    /// Reads /proc/PID/maps.
    ///
    /// # Errors
    /// [`FpmError::Permission`] for another user's process without CAP_SYS_PTRACE;
    /// [`FpmError::NoSuchProcess`] when it has ended.
    pub fn of(process: ProcessId) -> Result<Self, FpmError> {
        let path = process.path("maps");
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_MAPS).read_to_end(&mut text))
            .map_err(|source| FpmError::from_io(process.pid, &path, source))?;
        Ok(Self {
            process,
            mappings: parse(&text),
        })
    }

    /// The first mapping of this name: an [`Executable::link`](super::Executable::link), `[heap]`.
    ///
    /// Names are compared and not inodes, because the two files differ in device number on overlayfs and btrfs.
    pub fn named(&self, name: &Path) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.name == name)
    }

    /// Which file, and where in it, an address belongs to. `None` for memory that is no file's.
    pub fn file_at(&self, address: u64) -> Option<MappedFile> {
        let mapping = self
            .mappings
            .iter()
            .find(|mapping| mapping.addresses.contains(&address))
            .filter(|mapping| mapping.name.has_root())?;
        let within = address - mapping.addresses.start;
        Some(MappedFile {
            path: self.path_to(mapping),
            name: mapping.name.clone(),
            offset: mapping.offset.checked_add(within)?,
        })
    }

    /// The mappings that worker processes share: opcache's memory, but also APCu's and php-fpm's scoreboard.
    ///
    /// They are `/dev/zero (deleted)` (mmap), `/SYSV…` (shm), or a file of /dev/shm or a memfd.
    pub fn shared_memory(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings
            .iter()
            .filter(|mapping| mapping.shared && is_memory(&mapping.name))
    }

    /// /proc/PID/map_files opens deleted files too, but asks for CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
    fn path_to(&self, mapping: &Mapping) -> PathBuf {
        let Range { start, end } = mapping.addresses;
        let direct = self.process.path(format!("map_files/{start:x}-{end:x}"));
        if File::open(&direct).is_ok() {
            return direct;
        }
        let name = mapping.name.strip_prefix("/").unwrap_or(&mapping.name);
        self.process.path("root").join(name)
    }
}

fn is_memory(name: &Path) -> bool {
    const PREFIXES: [&[u8]; 5] = [
        b"/dev/zero",
        b"/SYSV",
        b"/dev/shm/",
        b"/memfd:",
        b"/anon_hugepage",
    ];
    let name = name.as_os_str().as_bytes();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Lines that make no sense are left out: the last one may be cut.
fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `55ca1233f000-55ca12655000 r-xp 000dd000 fe:00 10019937    /usr/sbin/php-fpm8.2`
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut text = || {
        fields
            .next()
            .and_then(|field| std::str::from_utf8(field).ok())
    };
    let (start, end) = text()?.split_once('-')?;
    let permissions = text()?.as_bytes();
    let offset = text()?;
    let (_device, _inode) = (text()?, text()?);
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    Some(Mapping {
        addresses: hex(start)?..hex(end)?,
        offset: hex(offset)?,
        executable: permissions.get(2) == Some(&b'x'),
        shared: permissions.get(3) == Some(&b's'),
        name: PathBuf::from(OsStr::from_bytes(name)),
    })
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55ca12262000-55ca1233f000 r--p 00000000 fe:00 10019937                   /usr/sbin/php-fpm8.2 (deleted)
55ca1233f000-55ca12655000 r-xp 000dd000 fe:00 10019937                   /usr/sbin/php-fpm8.2 (deleted)
55ca127cd000-55ca127d0000 rw-p 00000000 00:00 0
55ca46d86000-55ca46f19000 rw-p 00000000 00:00 0                          [heap]
7f4200000000-7f4208000000 rw-s 00000000 00:01 26                         /dev/zero (deleted)
7f4208000000-7f4209000000 r-xs 08000000 00:01 26                         /dev/zero (deleted)
7f4279627000-7f4279628000 r--p 00000000 fe:00 7                          /SYSV\xff
7f4279630000-7f42796";

    fn mappings() -> Mappings {
        Mappings {
            process: ProcessId {
                pid: i32::MAX,
                start_time: 0,
            },
            mappings: parse(MAPS),
        }
    }

    #[test]
    fn a_cut_line_and_a_name_in_no_encoding_do_no_harm() {
        assert_eq!(parse(MAPS).len(), 7);
    }

    #[test]
    fn the_first_mapping_of_the_executable_gives_the_load_bias() {
        let maps = mappings();
        let first = maps
            .named(Path::new("/usr/sbin/php-fpm8.2 (deleted)"))
            .expect("mapped");
        assert_eq!((first.addresses.start, first.offset), (0x55ca_1226_2000, 0));
        assert!(maps.named(Path::new("[heap]")).is_some());
    }

    #[test]
    fn an_address_belongs_to_a_file_and_a_place_in_it() {
        let found = mappings().file_at(0x55ca_1233_f010).expect("mapped");
        assert_eq!(found.offset, 0xdd010);
        assert!(
            found
                .path
                .starts_with(format!("/proc/{}/root/usr/sbin", i32::MAX))
        );
        assert_eq!(
            mappings().file_at(0x55ca_46d8_6000),
            None,
            "the heap is no file"
        );
        assert_eq!(mappings().file_at(1), None);
    }

    #[test]
    fn executable_shared_memory_is_seen() {
        let maps = mappings();
        let executable: Vec<bool> = maps
            .shared_memory()
            .map(|mapping| mapping.executable)
            .collect();
        assert_eq!(executable, [false, true]);
    }

    #[test]
    fn memprof_itself_is_mapped() {
        let own = ProcessId::of(std::process::id().cast_signed()).expect("own process");
        let executable = own.executable().expect("own executable");
        let maps = Mappings::of(own).expect("own maps");
        let here = maps
            .file_at(memprof_itself_is_mapped as fn() as usize as u64)
            .expect("own code");
        assert_eq!(here.name, executable.link);
        assert!(maps.named(&executable.link).is_some());
        assert!(File::open(here.path).is_ok());
    }
}
