//! Stacks of hand-made processes.

use super::super::frame::{call_sites, own_lines};
use super::super::memory::Memory;
use super::super::testing::Image;
use super::*;

/// The opcode of a call; any that means nothing to the walk will do.
const DO_FCALL: u8 = 60;

fn function(image: &mut Image, kind: u8, name: Option<&str>) -> u64 {
    let layout = image.layout;
    let memory = &mut image.memory;
    let function = memory.room(256);
    memory.put(function, &[kind]);
    let name = name.map_or(0, |name| memory.string(&layout, name));
    memory.put_u64(at(function, layout.function.function_name), name);
    if kind != 1 {
        let file = memory.string(&layout, "/srv/app/a.php");
        memory.put_u64(at(function, layout.op_array.filename), file);
        memory.put_u32(at(function, layout.op_array.line_start), 3);
    }
    function
}

/// A frame that stands at an instruction of `line`.
fn frame(image: &mut Image, function: u64, line: u32, opcode: u8, extended: u32) -> u64 {
    let layout = image.layout;
    let memory = &mut image.memory;
    let opline = memory.room(32);
    memory.put_u32(at(opline, layout.op.lineno), line);
    memory.put(at(opline, layout.op.opcode), &[opcode]);
    memory.put_u32(at(opline, layout.op.extended_value), extended);
    memory.put_u64(at(function, layout.op_array.opcodes), opline);
    memory.put_u32(at(function, layout.op_array.last), 1);
    let frame = memory.room(80);
    memory.put_u64(at(frame, layout.execute_data.opline), opline);
    memory.put_u64(at(frame, layout.execute_data.func), function);
    frame
}

fn call(image: &mut Image, name: &str, line: u32) -> u64 {
    let function = function(image, 2, Some(name));
    frame(image, function, line, DO_FCALL, 0)
}

fn main(image: &mut Image, line: u32) -> u64 {
    let function = function(image, 2, None);
    let main = frame(image, function, line, DO_FCALL, 0);
    let type_info = at(main, image.layout.execute_data.type_info);
    image.memory.put_u32(type_info, 3 << 16);
    main
}

/// Links frames, innermost first, and makes the first one current.
fn link(image: &mut Image, frames: &[u64]) {
    let current = image.executor(image.layout.executor.current_execute_data);
    image.memory.put_u64(current, frames[0]);
    for pair in frames.windows(2) {
        let prev = at(pair[0], image.layout.execute_data.prev);
        image.memory.put_u64(prev, pair[1]);
    }
}

fn walk(image: &Image, frameless: Option<u64>, most_frames: usize) -> Stack {
    let reader = Reader {
        memory: &image.memory,
        layout: &image.layout,
    };
    let executor = image.globals.executor.address;
    Walk::new(reader, executor, frameless, most_frames)
        .run()
        .expect("executor_globals are mapped")
}

/// Names and lines, 0 for none.
fn names(stack: &Stack) -> Vec<(String, u32)> {
    own_lines(&stack.frames)
        .into_iter()
        .map(|frame| (frame.function, frame.line.unwrap_or(0)))
        .collect()
}

fn named(name: &str, line: u32) -> (String, u32) {
    (name.to_owned(), line)
}

#[test]
fn frames_are_read_with_their_own_lines() {
    let mut image = Image::new("8.2.36");
    let strlen = function(&mut image, 1, Some("strlen"));
    let frames = [
        frame(&mut image, strlen, 0, 0, 0),
        call(&mut image, "inner", 12),
        main(&mut image, 30),
    ];
    link(&mut image, &frames);
    let stack = walk(&image, None, 16);
    assert_eq!(stack.end, StackEnd::Whole);
    assert_eq!(
        names(&stack),
        [named("strlen", 0), named("inner", 12), named("{main}", 30)]
    );
}

#[test]
fn a_deep_stack_is_cut_and_a_ring_is_torn() {
    let mut image = Image::new("8.2.36");
    let frames: Vec<_> = (0..20).map(|_| call(&mut image, "again", 5)).collect();
    link(&mut image, &frames);
    let stack = walk(&image, None, 8);
    assert_eq!((stack.frames.len(), stack.end), (8, StackEnd::Cut));
    let mut ring = frames.clone();
    ring.push(frames[3]);
    link(&mut image, &ring);
    let stack = walk(&image, None, 4096);
    assert_eq!(stack.frames.len(), 20);
    assert!(matches!(stack.end, StackEnd::Torn(_)));
}

#[test]
fn an_include_names_the_file_it_runs() {
    let mut image = Image::new("8.2.36");
    let file = function(&mut image, 2, None);
    let file = frame(&mut image, file, 4, DO_FCALL, 0);
    let type_info = at(file, image.layout.execute_data.type_info);
    image.memory.put_u32(type_info, 1 << 16);
    let requirer = function(&mut image, 2, Some("load"));
    let frames = [file, frame(&mut image, requirer, 9, 73, 16)];
    link(&mut image, &frames);
    assert_eq!(
        names(&walk(&image, None, 16)),
        [named("require_once", 4), named("load", 9)]
    );
}

#[test]
fn generators_that_wait_for_each_other_are_all_there() {
    let mut image = Image::new("8.2.36");
    let layout = image.layout;
    let class = image.class("Generator", 8);
    let mut generators = Vec::new();
    for (name, line) in [("outer", 3), ("middle", 2), ("inner", 1)] {
        let generator = image.memory.room(280);
        let frame = call(&mut image, name, line);
        image
            .memory
            .put_u64(at(generator, layout.object.class), class);
        image
            .memory
            .put_u64(at(generator, layout.generator.execute_data), frame);
        generators.push((generator, frame));
    }
    for pair in generators.windows(2) {
        let parent = at(pair[0].0, layout.generator.parent);
        image.memory.put_u64(parent, pair[1].0);
    }
    let placeholder = image.memory.room(80);
    image
        .memory
        .put_u64(at(placeholder, layout.execute_data.this), generators[0].0);
    image
        .memory
        .put_u32(at(placeholder, layout.execute_data.type_info), IS_OBJECT);
    let frames = [generators[2].1, placeholder, main(&mut image, 9)];
    link(&mut image, &frames);
    assert_eq!(
        names(&walk(&image, None, 16)),
        [
            named("inner", 1),
            named("middle", 2),
            named("outer", 3),
            named("{main}", 9)
        ]
    );
    assert_eq!(walk(&image, None, 2).end, StackEnd::Cut);
}

#[test]
fn a_frameless_call_is_a_frame_of_its_own() {
    let mut image = Image::new("8.4.27");
    let implode = function(&mut image, 1, Some("implode"));
    let functions = image.memory.room(64);
    image.memory.put_u64(functions + 3 * 8, implode);
    let table = image.memory.room(8);
    image.memory.put_u64(table, functions);
    let caller = function(&mut image, 2, Some("caller"));
    let frames = [frame(&mut image, caller, 6, 206, 3)];
    link(&mut image, &frames);
    let stack = walk(&image, Some(table), 16);
    assert_eq!(names(&stack), [named("implode", 0), named("caller", 6)]);
    assert_eq!(call_sites(&stack.frames)[0].line, Some(6));
    assert_eq!(names(&walk(&image, None, 16)), [named("caller", 6)]);
}

#[test]
fn while_an_exception_unwinds_the_line_is_that_of_the_throw() {
    let mut image = Image::new("8.2.36");
    let layout = image.layout;
    let frames = [call(&mut image, "thrower", 5)];
    link(&mut image, &frames);
    let thrown_at = image.memory.u64(frames[0]).unwrap_or(0);
    let exception_op = image.memory.room(32);
    image.memory.put(at(exception_op, layout.op.opcode), &[149]);
    image.memory.put_u64(frames[0], exception_op);
    let before = image.executor(layout.executor.opline_before_exception);
    image.memory.put_u64(before, thrown_at);
    assert_eq!(names(&walk(&image, None, 16)), [named("thrower", 5)]);
    image.memory.put_u64(before, 0);
    assert_eq!(names(&walk(&image, None, 16)), [named("thrower", 3)]);
}

fn ends(image: &Image, each_end: usize) -> StackEnds {
    let reader = Reader {
        memory: &image.memory,
        layout: &image.layout,
    };
    let walk = Walk::new(reader, image.executor(0), None, each_end);
    walk.ends(each_end).expect("readable")
}

#[test]
fn both_ends_of_a_deep_stack_are_kept_and_the_rest_is_counted() {
    let mut image = Image::new("8.2.36");
    let mut frames: Vec<u64> = (0..50).map(|line| call(&mut image, "deep", line)).collect();
    frames.push(main(&mut image, 99));
    link(&mut image, &frames);
    let found = ends(&image, 10);
    let lines = |frames: &[RawFrame]| frames.iter().filter_map(|f| f.line).collect::<Vec<_>>();
    assert_eq!(lines(&found.innermost), (0..10).collect::<Vec<_>>());
    assert_eq!(found.skipped, 31);
    let outermost: Vec<u32> = (41..50).chain([99]).collect();
    assert_eq!(lines(&found.outermost), outermost);
    assert_eq!(found.end, StackEnd::Whole);
    // Deep enough for both ends, and no more.
    for each_end in [26, 51, 100] {
        let found = ends(&image, each_end);
        assert_eq!(found.innermost.len() + found.outermost.len(), 51);
        assert_eq!((found.skipped, found.end), (0, StackEnd::Whole));
    }
}

#[test]
fn a_deep_stack_that_leads_back_to_itself_ends() {
    let mut image = Image::new("8.2.36");
    let frames: Vec<u64> = (0..30).map(|line| call(&mut image, "f", line)).collect();
    link(&mut image, &frames);
    let prev = at(frames[29], image.layout.execute_data.prev);
    image.memory.put_u64(prev, frames[3]);
    let found = ends(&image, 5);
    assert!(matches!(found.end, StackEnd::Torn(_)), "{:?}", found.end);
    assert_eq!((found.innermost.len(), found.outermost.len()), (5, 5));
}
