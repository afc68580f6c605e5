//! The known layouts: the first in full, each later one as what it changed.
//!
//! Sources: `offsetof` against the headers of Debian's 7.4.33, 8.2.32, 8.2.36, 8.4.24, 8.4.27, 8.5.7
//! and 8.6.0rc3 and of PHP's own 8.0.10, 8.1.11 and 8.3.0; 8.2.20, 8.3.8, 8.4.14 and 8.5.2 from other
//! distributions have the same fingerprints and were read live.

use super::fingerprint::Fingerprint;
use super::layout::{
    Array, Chunk, Class, Closure, CompilerGlobals, ExecuteData, ExecutorGlobals, Fcgi, Fiber,
    FileHandle, FileName, Function, Generator, Heap, Huge, IniEntry, Layout, MapPointer, Object,
    ObjectsStore, Op, OpArray, Opcodes, PropertyInfo, Reference, SapiGlobals, SessionGlobals,
    VmStack, ZendString, Zval,
};

/// Every known layout with the fingerprint it has on x86-64.
pub(super) const ALL: [(Fingerprint, Layout); 10] = [
    (sizes(1664, 576, 552, 688, 424), PHP_7_4),
    (sizes(1696, 544, 552, 680, 424), PHP_8_0),
    (sizes(1752, 568, 552, 664, 424), PHP_8_1),
    (sizes(1776, 568, 552, 672, 432), PHP_8_2),
    (sizes(1800, 568, 552, 672, 440), PHP_8_2_36),
    (sizes(1792, 568, 560, 616, 448), PHP_8_3),
    (sizes(1960, 616, 648, 616, 448), PHP_8_4),
    (sizes(1984, 616, 648, 616, 464), PHP_8_4_27),
    (sizes(1984, 616, 648, 624, 448), PHP_8_5),
    (sizes(2200, 616, 624, 632, 432), PHP_8_6),
];

const fn sizes(executor: u64, compiler: u64, sapi: u64, core: u64, session: u64) -> Fingerprint {
    Fingerprint {
        executor,
        compiler,
        sapi,
        core,
        session: Some(session),
    }
}

const PHP_7_4: Layout = Layout {
    php: "7.4.33",
    minor: (7, 4),
    executor: ExecutorGlobals {
        included_files: 360,
        zend_constants: 448,
        current_execute_data: 488,
        ini_directives: 816,
        object_buckets: 840,
        opline_before_exception: 880,
        symbol_table: 304,
        vm_stack: 472,
    },
    compiler: CompilerGlobals {
        class_table: 64,
        function_table: 56,
        map_ptr_base: 528,
        map_ptr_last: 544,
    },
    sapi: SapiGlobals {
        server_context: 0,
        request_method: 8,
        query_string: 16,
        path_translated: 40,
        request_uri: 48,
        sapi_started: 436,
        global_request_time: 440,
    },
    session: SessionGlobals {
        status: 104,
        variables: 312,
    },
    execute_data: ExecuteData {
        opline: 0,
        func: 24,
        this: 32,
        type_info: 40,
        prev: 48,
        size: 56,
        arguments_count: 44,
        symbol_table: 56,
        variables: 80,
    },
    op: Op {
        extended_value: 20,
        lineno: 24,
        opcode: 28,
        size: 32,
    },
    function: Function {
        kind: 0,
        fn_flags: 4,
        function_name: 8,
        scope: 16,
        size: 24,
        handler: 48,
    },
    op_array: OpArray {
        last: 60,
        opcodes: 64,
        filename: 136,
        line_start: 144,
        variables_count: 52,
        variables: 96,
        parameters: 32,
        static_variables_pointer: 80,
        static_variables: 88,
        run_time_cache: 72,
        size: 224,
    },
    class: Class {
        kind: 0,
        name: 8,
        parent: 16,
        flags: 28,
        properties_count: 32,
        function_table: 64,
        properties_info_table: 232,
        static_members_count: 36,
        static_members: 56,
        properties_info: 120,
        constants: 176,
        mutable_data: None,
    },
    property: PropertyInfo {
        offset: 0,
        name: 8,
        flags: 4,
        class: 24,
    },
    object: Object {
        extra_flags: None,
        class: 16,
        properties: 32,
        handle: 8,
        handlers: 24,
        slots: 40,
    },
    objects_store: ObjectsStore { top: 8, size: 12 },
    ini_entry: IniEntry { value: 40 },
    zval: Zval {
        kind: 8,
        indirect: 13,
        size: 16,
    },
    reference: Reference {
        refcount: 0,
        value: 8,
    },
    string: ZendString { len: 16, val: 24 },
    array: Array {
        flags: 8,
        data: 16,
        used: 24,
        count: 28,
        size: 32,
        packed_element: 32,
        mask: 12,
        room: 32,
        whole: 56,
    },
    generator: Generator {
        execute_data: 64,
        parent: 160,
    },
    closure: Closure { func: 56 },
    fiber: None,
    vm_stack: VmStack { prev: 16 },
    map_pointer: MapPointer {
        bias: 1,
        is_indirect: true,
    },
    file_handle: FileHandle {
        filename: 40,
        filename_is: FileName::CString,
    },
    heap: Heap {
        use_custom_heap: 0,
        hard_limit: None,
    },
    chunk: Chunk {
        heap: 0,
        next: 8,
        free_pages: 0x18,
        heap_slot: 0x40,
    },
    huge: Huge {
        ptr: 0,
        size: 8,
        next: 16,
        node: 24,
    },
    fcgi: Fcgi {
        newest_variable: 8296 + 1024,
        name_len: 4,
        name: 8,
        value_len: 16,
        value: 24,
        older: 40,
        bucket: 48,
    },
    opcodes: Opcodes {
        include_or_eval: 73,
        handle_exception: 149,
        frameless: None,
    },
};

const PHP_8_0: Layout = Layout {
    php: "8.0.10",
    minor: (8, 0),
    compiler: CompilerGlobals {
        map_ptr_base: 472,
        map_ptr_last: 488,
        ..PHP_7_4.compiler
    },
    function: Function {
        handler: 56,
        ..PHP_7_4.function
    },
    op_array: OpArray {
        last: 68,
        opcodes: 72,
        filename: 144,
        line_start: 152,
        variables_count: 60,
        variables: 104,
        static_variables_pointer: 88,
        static_variables: 96,
        run_time_cache: 80,
        size: 232,
        ..PHP_7_4.op_array
    },
    property: PropertyInfo {
        class: 32,
        ..PHP_7_4.property
    },
    map_pointer: MapPointer {
        bias: 0,
        is_indirect: true,
    },
    generator: Generator {
        execute_data: 56,
        parent: 152,
    },
    zval: Zval {
        indirect: 12,
        ..PHP_7_4.zval
    },
    ..PHP_7_4
};

const PHP_8_1: Layout = Layout {
    php: "8.1.11",
    minor: (8, 1),
    compiler: CompilerGlobals {
        map_ptr_base: 480,
        map_ptr_last: 496,
        ..PHP_8_0.compiler
    },
    op_array: OpArray {
        size: 240,
        ..PHP_8_0.op_array
    },
    class: Class {
        properties_info_table: 248,
        mutable_data: Some(232),
        ..PHP_8_0.class
    },
    fiber: Some(Fiber { execute_data: 264 }),
    file_handle: FileHandle {
        filename: 40,
        filename_is: FileName::ZendString,
    },
    ..PHP_8_0
};

const PHP_8_2: Layout = Layout {
    php: "8.2.20 and 8.2.32",
    minor: (8, 2),
    function: Function {
        handler: 72,
        ..PHP_8_1.function
    },
    op_array: OpArray {
        last: 80,
        opcodes: 88,
        filename: 152,
        line_start: 160,
        variables_count: 76,
        variables: 112,
        static_variables_pointer: 96,
        static_variables: 104,
        run_time_cache: 64,
        size: 248,
        ..PHP_8_1.op_array
    },
    fiber: Some(Fiber { execute_data: 280 }),
    map_pointer: MapPointer {
        bias: 0,
        is_indirect: false,
    },
    session: SessionGlobals {
        variables: 320,
        ..PHP_8_1.session
    },
    array: Array {
        packed_element: 16,
        ..PHP_8_1.array
    },
    ..PHP_8_1
};

const PHP_8_2_36: Layout = Layout {
    php: "8.2.36",
    heap: Heap {
        hard_limit: Some(0x128),
        ..PHP_8_2.heap
    },
    ..PHP_8_2
};

const PHP_8_3: Layout = Layout {
    php: "8.3.0 and 8.3.8",
    minor: (8, 3),
    op_array: OpArray {
        last: 76,
        opcodes: 80,
        filename: 144,
        line_start: 152,
        variables_count: 72,
        variables: 104,
        static_variables_pointer: 88,
        static_variables: 96,
        run_time_cache: 56,
        size: 240,
        ..PHP_8_2.op_array
    },
    fiber: Some(Fiber { execute_data: 288 }),
    session: SessionGlobals {
        variables: 336,
        ..PHP_8_2.session
    },
    ..PHP_8_2
};

const PHP_8_4: Layout = Layout {
    php: "8.4.14 and 8.4.24",
    minor: (8, 4),
    function: Function {
        handler: 88,
        ..PHP_8_3.function
    },
    executor: ExecutorGlobals {
        ini_directives: 832,
        object_buckets: 856,
        opline_before_exception: 952,
        ..PHP_8_3.executor
    },
    compiler: CompilerGlobals {
        map_ptr_base: 512,
        map_ptr_last: 528,
        ..PHP_8_3.compiler
    },
    op_array: OpArray {
        last: 96,
        opcodes: 104,
        filename: 168,
        line_start: 176,
        variables_count: 92,
        variables: 128,
        static_variables_pointer: 112,
        static_variables: 120,
        run_time_cache: 56,
        size: 256,
        ..PHP_8_3.op_array
    },
    session: SessionGlobals {
        variables: 360,
        ..PHP_8_3.session
    },
    object: Object {
        extra_flags: Some(12),
        ..PHP_8_3.object
    },
    opcodes: Opcodes {
        frameless: Some((204, 207)),
        ..PHP_8_3.opcodes
    },
    ..PHP_8_3
};

const PHP_8_4_27: Layout = Layout {
    php: "8.4.27",
    heap: Heap {
        hard_limit: Some(0x130),
        ..PHP_8_4.heap
    },
    ..PHP_8_4
};

const PHP_8_5: Layout = Layout {
    php: "8.5.2 and 8.5.7",
    minor: (8, 5),
    executor: ExecutorGlobals {
        zend_constants: 472,
        current_execute_data: 512,
        ini_directives: 856,
        object_buckets: 880,
        opline_before_exception: 976,
        vm_stack: 496,
        ..PHP_8_4.executor
    },
    ..PHP_8_4
};

const PHP_8_6: Layout = Layout {
    php: "8.6.0rc3",
    minor: (8, 6),
    executor: ExecutorGlobals {
        ini_directives: 904,
        object_buckets: 928,
        opline_before_exception: 1016,
        ..PHP_8_5.executor
    },
    sapi: SapiGlobals {
        sapi_started: 250,
        global_request_time: 432,
        ..PHP_8_5.sapi
    },
    session: SessionGlobals {
        variables: 352,
        ..PHP_8_5.session
    },
    class: Class {
        properties_count: 36,
        function_table: 72,
        properties_info_table: 256,
        static_members_count: 40,
        static_members: 64,
        properties_info: 128,
        constants: 184,
        mutable_data: Some(240),
        ..PHP_8_5.class
    },
    chunk: Chunk {
        free_pages: 0x20,
        ..PHP_8_5.chunk
    },
    ..PHP_8_5
};
