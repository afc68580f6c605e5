//! Offsets inside PHP's structs.
//!
//! One minor version has several layouts: the security releases of October 2026 moved members inside
//! 8.2 and 8.4. [`Layout::find`] chooses by the [`Fingerprint`](super::Fingerprint) of the binary,
//! and what is found is proven on the live process ([`Process::attach`](super::Process::attach))
//! before it is used.
//!
//! All offsets are in bytes, of non-thread-safe builds, measured by compiling `offsetof` against each
//! build's own headers (private structs: against its `zend_alloc.c` and `fastcgi.c`).

/// Every offset that memprof uses, for one layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The PHP releases that this layout was measured on: `8.2.36`.
    pub php: &'static str,
    /// The major and minor version that it belongs to.
    pub minor: (u8, u8),
    /// `executor_globals`
    pub executor: ExecutorGlobals,
    /// `compiler_globals`
    pub compiler: CompilerGlobals,
    /// `sapi_globals`
    pub sapi: SapiGlobals,
    /// `ps_globals`
    pub session: SessionGlobals,
    /// `zend_execute_data`
    pub execute_data: ExecuteData,
    /// `zend_op`
    pub op: Op,
    /// `zend_function`
    pub function: Function,
    /// `zend_op_array`
    pub op_array: OpArray,
    /// `zend_class_entry`
    pub class: Class,
    /// `zend_property_info`
    pub property: PropertyInfo,
    /// `zend_object`
    pub object: Object,
    /// `zend_objects_store`
    pub objects_store: ObjectsStore,
    /// `zend_ini_entry`
    pub ini_entry: IniEntry,
    /// `zval`
    pub zval: Zval,
    /// `zend_reference`
    pub reference: Reference,
    /// `zend_string`
    pub string: ZendString,
    /// `zend_array`
    pub array: Array,
    /// `zend_generator`
    pub generator: Generator,
    /// `zend_closure`
    pub closure: Closure,
    /// `zend_fiber`; PHP has fibers from 8.1 on.
    pub fiber: Option<Fiber>,
    /// `zend_vm_stack`
    pub vm_stack: VmStack,
    /// `ZEND_MAP_PTR`
    pub map_pointer: MapPointer,
    /// `zend_file_handle`
    pub file_handle: FileHandle,
    /// `zend_mm_heap`, as far as no code gives it away.
    pub heap: Heap,
    /// `zend_mm_chunk`, as far as no code gives it away.
    pub chunk: Chunk,
    /// `zend_mm_huge_list`
    pub huge: Huge,
    /// `fcgi_request` and its table of environment variables.
    pub fcgi: Fcgi,
    /// Opcodes by number.
    pub opcodes: Opcodes,
}

/// `zend_executor_globals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorGlobals {
    /// `included_files`, a `HashTable`.
    pub included_files: u32,
    /// `zend_constants`, a pointer to a `HashTable`.
    pub zend_constants: u32,
    /// `current_execute_data`, the innermost frame.
    pub current_execute_data: u32,
    /// `ini_directives`, a pointer to a `HashTable` of `zend_ini_entry *`.
    pub ini_directives: u32,
    /// `objects_store.object_buckets`
    pub object_buckets: u32,
    /// `opline_before_exception`
    pub opline_before_exception: u32,
    /// `symbol_table`, a `HashTable` in the struct itself: `$GLOBALS`.
    pub symbol_table: u32,
    /// `vm_stack`, the newest page of the VM's stack.
    pub vm_stack: u32,
}

/// `zend_compiler_globals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompilerGlobals {
    /// `class_table`, a pointer to a `HashTable`; the executor's is the same table, but null until
    /// the worker's first request.
    pub class_table: u32,
    /// `function_table`, a pointer to a `HashTable`; its keys are in lower case.
    pub function_table: u32,
    /// `map_ptr_base`: where the request keeps what classes and functions in shared memory point to.
    pub map_ptr_base: u32,
    /// `map_ptr_last`: how many words there are.
    pub map_ptr_last: u32,
}

/// `sapi_globals_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SapiGlobals {
    /// `server_context`, php-fpm's `fcgi_request *`.
    pub server_context: u32,
    /// `request_info.request_method`, a `char *`.
    pub request_method: u32,
    /// `request_info.query_string`, a `char *`.
    pub query_string: u32,
    /// `request_info.path_translated`, a `char *`: the script.
    pub path_translated: u32,
    /// `request_info.request_uri`, a `char *`; php-fpm keeps the script's name here.
    pub request_uri: u32,
    /// `sapi_started`, one byte.
    pub sapi_started: u32,
    /// `global_request_time`, a `double` of Unix seconds; 0 until the script asks for it.
    pub global_request_time: u32,
}

/// `php_ps_globals`: the session extension's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionGlobals {
    /// `session_status`, an `int`: 2 is active.
    pub status: u32,
    /// `http_session_vars`, a zval: `$_SESSION`, as a reference to an array.
    pub variables: u32,
}

/// `zend_execute_data`: one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecuteData {
    /// `opline`, a `zend_op *`.
    pub opline: u32,
    /// `func`, a `zend_function *`; null in frames that the engine puts in for its own ends.
    pub func: u32,
    /// `This`, the value of a zval: a `zend_object *` when its type says so.
    pub this: u32,
    /// `This.u1.type_info`: the zval's type in the low byte, `ZEND_CALL_*` flags from bit 16 on.
    pub type_info: u32,
    /// `prev_execute_data`, the caller.
    pub prev: u32,
    /// Bytes to read to have all of the above.
    pub size: u32,
    /// `This.u2.num_args`
    pub arguments_count: u32,
    /// `symbol_table`, in frames of code that is in no function: where its variables are known by name.
    pub symbol_table: u32,
    /// Where the compiled variables begin, a zval each: `ZEND_CALL_FRAME_SLOT` zvals on.
    pub variables: u32,
}

/// `zend_op`: one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// `extended_value`: the kind of an include; which function a frameless call is for.
    pub extended_value: u32,
    /// `lineno`
    pub lineno: u32,
    /// `opcode`, one byte.
    pub opcode: u32,
    /// Size of the struct.
    pub size: u32,
}

/// `zend_function`: what user and internal functions have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// `type`, one byte: 1 internal, 2 user, 4 eval'd code.
    pub kind: u32,
    /// `common.fn_flags`
    pub fn_flags: u32,
    /// `common.function_name`, a `zend_string *`; null for a file's top-level code.
    pub function_name: u32,
    /// `common.scope`, a `zend_class_entry *`: the declaring class.
    pub scope: u32,
    /// Bytes to read to have all of the above.
    pub size: u32,
    /// `zend_internal_function.handler`, a pointer to code; internal functions only.
    pub handler: u32,
}

/// `zend_op_array`: a user function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpArray {
    /// `last`: how many instructions there are.
    pub last: u32,
    /// `opcodes`, a `zend_op *`.
    pub opcodes: u32,
    /// `filename`, a `zend_string *`.
    pub filename: u32,
    /// `line_start`
    pub line_start: u32,
    /// `last_var`: compiled variables, an `int`.
    pub variables_count: u32,
    /// `vars`, a `zend_string *` for each compiled variable.
    pub variables: u32,
    /// `num_args`: declared parameters.
    pub parameters: u32,
    /// `static_variables_ptr`, a `HashTable *` behind a [`MapPointer`].
    pub static_variables_pointer: u32,
    /// `static_variables`, a `HashTable *`.
    pub static_variables: u32,
    /// `run_time_cache`, behind a [`MapPointer`].
    pub run_time_cache: u32,
    /// Size of the struct.
    pub size: u32,
}

/// `zend_class_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// `type`, one byte: 1 internal, 2 user.
    pub kind: u32,
    /// `name`, a `zend_string *`.
    pub name: u32,
    /// `parent`, a `zend_class_entry *` once the class is linked.
    pub parent: u32,
    /// `ce_flags`
    pub flags: u32,
    /// `default_properties_count`: property slots of an object, an `int`.
    pub properties_count: u32,
    /// `function_table`, a `HashTable` in the struct itself; its keys are in lower case.
    pub function_table: u32,
    /// `properties_info_table`: a `zend_property_info *` for each slot, null for a slot without a property.
    pub properties_info_table: u32,
    /// `default_static_members_count`, an `int`.
    pub static_members_count: u32,
    /// `static_members_table`, a zval for each static property, behind a [`MapPointer`].
    pub static_members: u32,
    /// `properties_info`, a `HashTable` in the struct itself.
    pub properties_info: u32,
    /// `constants_table`, a `HashTable` in the struct itself, of `zend_class_constant *`.
    pub constants: u32,
    /// `mutable_data`, behind a [`MapPointer`]: what a class in shared memory has for each request
    /// (from PHP 8.1 on).
    pub mutable_data: Option<u32>,
}

/// `zend_property_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PropertyInfo {
    /// `offset`, of the property's zval in the object.
    pub offset: u32,
    /// `name`, a `zend_string *`, mangled: `\0*\0name` if protected, `\0Class\0name` if private.
    pub name: u32,
    /// `flags`
    pub flags: u32,
    /// `ce`, the class that declares it.
    pub class: u32,
}

/// `zend_object`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// `extra_flags`, which say whether it is lazy (from PHP 8.4 on; padding before).
    pub extra_flags: Option<u32>,
    /// `ce`, a `zend_class_entry *`.
    pub class: u32,
    /// `properties`, a `zend_array *` of all properties; null until something asks for it.
    pub properties: u32,
    /// `handle`
    pub handle: u32,
    /// `handlers`; the first word there is `offset`, an `int`: where the object is in its slot.
    pub handlers: u32,
    /// `properties_table`, a zval for each declared property.
    pub slots: u32,
}

/// `zend_objects_store`, as far as from its `object_buckets` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectsStore {
    /// `top`: handles given out so far, freed ones included.
    pub top: u32,
    /// `size`: handles that there is room for.
    pub size: u32,
}

/// `zend_ini_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IniEntry {
    /// `value`, a `zend_string *`; null for an entry without a value.
    pub value: u32,
}

/// `zval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zval {
    /// `u1.v.type`, one byte.
    pub kind: u32,
    /// `IS_INDIRECT`, as a type.
    pub indirect: u8,
    /// Size of the struct.
    pub size: u32,
}

/// `zend_reference`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `gc.refcount`
    pub refcount: u32,
    /// `val`, a zval.
    pub value: u32,
}

/// `zend_string`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZendString {
    /// `len`, in bytes.
    pub len: u32,
    /// `val`, the bytes themselves.
    pub val: u32,
}

/// `zend_array` (`HashTable`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// `u.flags`
    pub flags: u32,
    /// `arData`, a `Bucket *`.
    pub data: u32,
    /// `nNumUsed`: slots in use, deleted ones included.
    pub used: u32,
    /// `nNumOfElements`
    pub count: u32,
    /// Bytes to read to have all of the above.
    pub size: u32,
    /// Size of an element of a packed array: a `Bucket` (to PHP 8.1) or a zval (from 8.2 on).
    pub packed_element: u32,
    /// `nTableMask`: the hash part in front of `arData` has minus so many `uint32_t`.
    pub mask: u32,
    /// `nTableSize`: room for so many slots.
    pub room: u32,
    /// Size of the struct itself.
    pub whole: u32,
}

/// How the engine points to what is each request's own, in classes and functions that can be in shared
/// memory (`ZEND_MAP_PTR`). An odd word is an offset into the request's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapPointer {
    /// What is taken off an offset (from PHP 8.0 on the table's address has it taken off).
    pub bias: u32,
    /// Whether an even word points to the pointer, and is not the pointer itself (up to PHP 8.1).
    pub is_indirect: bool,
}

/// `zend_closure`: an object, and behind it a copy of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closure {
    /// `func`, a `zend_function`.
    pub func: u32,
}

/// `zend_fiber`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fiber {
    /// `execute_data`, the innermost frame of a fiber that waits.
    pub execute_data: u32,
}

/// `zend_vm_stack`: one page of the VM's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmStack {
    /// `prev`, the page before.
    pub prev: u32,
}

/// `zend_generator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generator {
    /// `execute_data`, the generator's own frame.
    pub execute_data: u32,
    /// `node.parent`: the generator that this one delegates to with `yield from`.
    pub parent: u32,
}

/// `zend_file_handle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHandle {
    /// `filename`
    pub filename: u32,
    /// What `filename` points to.
    pub filename_is: FileName,
}

/// What `zend_file_handle.filename` points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// A `char *`, up to PHP 8.0.
    CString,
    /// A `zend_string *`, from PHP 8.1 on.
    ZendString,
}

/// `zend_mm_heap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// `use_custom_heap`, an `int`.
    pub use_custom_heap: u32,
    /// `hard_limit`, up to which real_size may overshoot the limit (builds since October 2026).
    pub hard_limit: Option<u32>,
}

/// `zend_mm_chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// `heap`, a pointer back to the heap.
    pub heap: u32,
    /// `next`, in a ring through all chunks.
    pub next: u32,
    /// `free_pages`, an `uint32_t`.
    pub free_pages: u32,
    /// `heap_slot`: where the main chunk holds the heap itself.
    pub heap_slot: u32,
}

/// `zend_mm_huge_list`: one huge block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Huge {
    /// `ptr`, the block.
    pub ptr: u32,
    /// `size`, in bytes.
    pub size: u32,
    /// `next`
    pub next: u32,
    /// Size of the struct.
    pub node: u32,
}

/// `fcgi_request`, `fcgi_hash` and `fcgi_hash_bucket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fcgi {
    /// `fcgi_request.env.list`: the newest variable.
    pub newest_variable: u32,
    /// `fcgi_hash_bucket.var_len`
    pub name_len: u32,
    /// `fcgi_hash_bucket.var`
    pub name: u32,
    /// `fcgi_hash_bucket.val_len`
    pub value_len: u32,
    /// `fcgi_hash_bucket.val`
    pub value: u32,
    /// `fcgi_hash_bucket.list_next`: the variable that was set before this one.
    pub older: u32,
    /// Size of `fcgi_hash_bucket`.
    pub bucket: u32,
}

/// Opcodes by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcodes {
    /// `ZEND_INCLUDE_OR_EVAL`
    pub include_or_eval: u8,
    /// `ZEND_HANDLE_EXCEPTION`
    pub handle_exception: u8,
    /// `ZEND_FRAMELESS_ICALL_0` and `_3`, the first and the last of them (from PHP 8.4 on).
    pub frameless: Option<(u8, u8)>,
}
