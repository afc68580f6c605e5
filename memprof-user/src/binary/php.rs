//! A PHP executable, with everything that is learned from it.

use std::fs::File;

use super::allocator::AllocatorFunctions;
use super::code::Code;
use super::{
    BinaryError, Decoded, ElfImage, Evidence, Global, Globals, PhpVersion, ProbeSite, Site, decode,
    sites,
};

/// A PHP executable: its version and globals, the offsets decoded from it, and its probe sites.
pub struct PhpBinary {
    pub(super) image: ElfImage,
    /// The version that it states about itself.
    pub version: PhpVersion,
    /// Its exported globals.
    pub globals: Globals,
    /// The offsets recovered from its code.
    pub decoded: Decoded,
    /// Where probes go, [`Site::CompileFile`] excepted, whose function is known only to a live
    /// process: see [`PhpBinary::site_at_entry`].
    pub sites: Vec<ProbeSite>,
    /// How each value and each static function was found.
    pub evidence: Vec<Evidence>,
}

impl PhpBinary {
    /// Reads and decodes a PHP executable.
    ///
    /// # Errors
    /// Every [`BinaryError`]: nothing is guessed, and nothing is returned in part.
    pub fn open(file: File) -> Result<Self, BinaryError> {
        let image = ElfImage::open(file)?;
        let globals = globals(&image)?;
        let mut evidence = Vec::new();
        let code = Code::new(&image)?;
        let version = decode::version(&code, &mut evidence)?;
        let heap_pointer = decode::heap_pointer(&code, &mut evidence)?;
        let allocator = AllocatorFunctions::find(&code, heap_pointer, &mut evidence)?;
        let decoded = decode::decode(
            &code,
            heap_pointer,
            globals.executor,
            &allocator,
            &mut evidence,
        )?;
        allocator.check_free_pages(&code, decoded.chunk_map)?;
        let sites = sites::find(&code, &allocator, decoded.chunk_map)?;
        Ok(Self {
            image,
            version,
            globals,
            decoded,
            sites,
            evidence,
        })
    }

    /// The processor that its code is for.
    pub fn machine(&self) -> object::Architecture {
        self.image.machine()
    }

    /// The GNU build-id in hex: the key of what is cached about this executable.
    pub fn build_id(&self) -> Option<&str> {
        self.image.build_id()
    }

    /// A symbol that the executable defines and exports, such as `zend_compile_file`.
    pub fn symbol(&self, name: &str) -> Option<Global> {
        self.image.symbol(name)
    }

    /// Where in the file the byte at an ELF virtual address is, as uprobes want it.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.image.file_offset(address)
    }

    /// What a process adds to this file's addresses: see [`ElfImage::load_bias`].
    pub fn load_bias(&self, mapping_start: u64, mapping_offset: u64) -> Option<u64> {
        self.image.load_bias(mapping_start, mapping_offset)
    }

    /// The best probe site at the entry of a function of this executable, by its ELF virtual
    /// address: see [`ElfImage::entry_site`].
    ///
    /// # Errors
    /// [`BinaryError::NotFound`] if no function starts there.
    pub fn site_at_entry(
        &self,
        site: Site,
        function: &str,
        address: u64,
    ) -> Result<ProbeSite, BinaryError> {
        self.image.entry_site(site, function, address)
    }
}

impl ElfImage {
    /// The best probe site at the entry of the function that starts at an ELF virtual address.
    /// Works on any ELF file, stripped or not, such as a module that replaced a function of PHP.
    ///
    /// # Errors
    /// [`BinaryError::NotFound`] if no function starts there;
    /// [`BinaryError::UnsupportedMachine`] if its code cannot be decoded.
    pub fn entry_site(
        &self,
        site: Site,
        function: &str,
        address: u64,
    ) -> Result<ProbeSite, BinaryError> {
        sites::entry_site(&Code::new(self)?, site, function, address)
    }

    /// The returns of the function that starts at an ELF virtual address: probes there, unlike the kernel's own
    /// return probes, leave the stack alone, and so do no harm where a fiber is suspended within the function.
    ///
    /// # Errors
    /// As [`ElfImage::entry_site`]; also [`BinaryError::NotFound`] if the function has no return.
    pub fn return_sites(
        &self,
        site: Site,
        function: &str,
        address: u64,
    ) -> Result<Vec<ProbeSite>, BinaryError> {
        sites::return_sites(&Code::new(self)?, site, function, address)
    }
}

fn globals(image: &ElfImage) -> Result<Globals, BinaryError> {
    let global = |name: &str| -> Result<Global, BinaryError> {
        image.symbol(name).ok_or_else(|| BinaryError::NotPhp {
            missing: name.to_owned(),
        })
    };
    if image.symbol("executor_globals").is_none()
        && image.symbol("executor_globals_offset").is_some()
    {
        return Err(BinaryError::ThreadSafe);
    }
    Ok(Globals {
        executor: global("executor_globals")?,
        compiler: global("compiler_globals")?,
        core: global("core_globals")?,
        sapi: global("sapi_globals")?,
        session: image.symbol("ps_globals"),
    })
}
