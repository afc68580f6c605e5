//! Lengths of hand-made values; what they are held against is what PHP 8.2 printed.

use super::super::memory::Memory;
use super::super::testing::Image;
use super::*;

const STRING: u8 = 6;
const ARRAY: u8 = 7;
const OBJECT: u8 = 8;
const REFERENCE: u8 = 10;

/// A process with values of its own.
struct Values(Image);

impl Values {
    fn new() -> Values {
        Values(Image::new("8.2.36"))
    }

    fn string(&mut self, text: &str) -> (u8, u64) {
        (STRING, self.0.memory.string(&self.0.layout, text))
    }

    fn put(&mut self, address: u64, (kind, word): (u8, u64)) {
        self.0.memory.put_u64(address, word);
        self.0.memory.put_u64(address + 8, u64::from(kind));
    }

    /// A list, packed as PHP 8.2 packs it: 16 bytes an element.
    fn list(&mut self, elements: &[(u8, u64)]) -> (u8, u64) {
        let data = self.0.memory.room(elements.len() as u64 * 16);
        for (slot, element) in (data..).step_by(16).zip(elements) {
            self.put(slot, *element);
        }
        self.table(data, elements.len(), 1 << 2)
    }

    /// An array under texts.
    fn array(&mut self, elements: &[(&str, (u8, u64))]) -> (u8, u64) {
        let data = self.0.memory.room(elements.len() as u64 * 32);
        for (slot, (key, element)) in (data..).step_by(32).zip(elements) {
            let (_, key) = self.string(key);
            self.put(slot, *element);
            self.0.memory.put_u64(slot + 24, key);
        }
        self.table(data, elements.len(), 0)
    }

    fn table(&mut self, data: u64, count: usize, flags: u32) -> (u8, u64) {
        let table = self.0.memory.room(56);
        self.0.memory.put_u32(table + 8, flags);
        self.0.memory.put_u64(table + 16, data);
        self.0.memory.put_u32(table + 24, count as u32);
        self.0.memory.put_u32(table + 28, count as u32);
        (ARRAY, table)
    }

    fn reference(&mut self, refcount: u32, value: (u8, u64)) -> (u8, u64) {
        let reference = self.0.memory.room(32);
        self.0.memory.put_u32(reference, refcount);
        self.put(reference + 8, value);
        (REFERENCE, reference)
    }

    /// A class of PHP code with one public property `p` and these methods.
    fn class(&mut self, name: &str, methods: &[(&str, (u8, u64))]) -> u64 {
        let class = self.0.class(name, 1 << 3);
        self.0.memory.put(class, &[2]);
        self.0.memory.put_u32(class + 32, 1);
        let (_, functions) = self.array(methods);
        let mut header = [0; 56];
        let read = self.0.memory.read(functions, &mut header);
        assert_eq!(read, Ok(()));
        self.0.memory.put(class + 64, &header);
        let (_, property) = self.string("p");
        let info = self.0.memory.room(56);
        self.0.memory.put_u32(info, 40);
        self.0.memory.put_u64(info + 8, property);
        let infos = self.0.memory.room(8);
        self.0.memory.put_u64(infos, info);
        self.0.memory.put_u64(class + 248, infos);
        class
    }

    fn object(&mut self, class: u64, property: (u8, u64)) -> (u8, u64) {
        let object = self.0.memory.room(56);
        // As shared as the tests make it.
        self.0.memory.put_u32(object, 2);
        self.0.memory.put_u64(object + 16, class);
        self.put(object + 40, property);
        (OBJECT, object)
    }

    fn length(&mut self, value: (u8, u64)) -> Result<u64, Unsized> {
        let address = self.0.memory.room(16);
        self.put(address, value);
        let reader = Reader {
            memory: &self.0.memory,
            layout: &self.0.layout,
        };
        Serializer::new(reader, Some(SHORTEST.to_owned())).length(reader.value(address)?)
    }

    fn is(&mut self, value: (u8, u64), serialized: &str) {
        assert_eq!(
            self.length(value),
            Ok(serialized.len() as u64),
            "{serialized}"
        );
    }
}

fn float(number: f64) -> (u8, u64) {
    (5, number.to_bits())
}

#[test]
fn scalars() {
    let mut values = Values::new();
    values.is((1, 0), "N;");
    values.is((2, 0), "b:0;");
    values.is((3, 0), "b:1;");
    values.is((9, 0), "i:0;");
    for number in [0, 9, 10, -1, i64::MIN, i64::MAX] {
        values.is((4, number.cast_unsigned()), &format!("i:{number};"));
    }
    for (number, text) in [
        (0.1, "d:0.1;"),
        (-0.0, "d:-0;"),
        (1e25, "d:1.0E+25;"),
        (1.5e-7, "d:1.5E-7;"),
        (f64::NAN, "d:NAN;"),
        (f64::INFINITY, "d:INF;"),
        (f64::NEG_INFINITY, "d:-INF;"),
    ] {
        values.is(float(number), text);
    }
    for text in ["", "é", "0123456789"] {
        let string = values.string(text);
        values.is(string, &format!("s:{}:\"{text}\";", text.len()));
    }
}

#[test]
fn arrays_without_their_deleted_elements() {
    let mut values = Values::new();
    let empty = values.list(&[]);
    values.is(empty, "a:0:{}");
    let list = values.list(&[(4, 7), (0, 0), (3, 0)]);
    values.is(list, "a:2:{i:0;i:7;i:2;b:1;}");
    let array = values.array(&[("a", list), ("b", empty)]);
    values.is(
        array,
        "a:2:{s:1:\"a\";a:2:{i:0;i:7;i:2;b:1;}s:1:\"b\";a:0:{}}",
    );
}

#[test]
fn what_came_before_is_a_back_reference() {
    let mut values = Values::new();
    let class = values.class("Foo", &[]);
    let object = values.object(class, (4, 5));
    let list = values.list(&[object, object]);
    values.is(list, "a:2:{i:0;O:3:\"Foo\":1:{s:1:\"p\";i:5;}i:1;r:2;}");
    let reference = values.reference(2, (4, 5));
    let list = values.list(&[reference, reference]);
    values.is(list, "a:2:{i:0;i:5;i:1;R:2;}");
    // A reference that nobody shares is none, however often it is met.
    let lonely = values.reference(1, (4, 5));
    let list = values.list(&[lonely, lonely]);
    values.is(list, "a:2:{i:0;i:5;i:1;i:5;}");
    // A repeated reference takes no number, a repeated object does: the 11th is r:11, not r:10.
    let filler = [
        object,
        object,
        reference,
        reference,
        reference,
        (4, 1),
        (4, 1),
        (4, 1),
        (4, 1),
    ];
    let other = values.object(class, (1, 0));
    let list = values.list(&[&filler[..], &[other, other]].concat());
    values.is(
        list,
        "a:11:{i:0;O:3:\"Foo\":1:{s:1:\"p\";i:5;}i:1;r:2;i:2;i:5;i:3;R:5;i:4;R:5;i:5;i:1;i:6;i:1;\
         i:7;i:1;i:8;i:1;i:9;O:3:\"Foo\":1:{s:1:\"p\";N;}i:10;r:10;}",
    );
}

#[test]
fn an_object_that_php_may_not_have_remembered_is_unknown() {
    let mut values = Values::new();
    let class = values.class("Foo", &[]);
    let object = values.object(class, (1, 0));
    values.0.memory.put_u32(object.1, 1);
    let list = values.list(&[object, object]);
    assert!(matches!(values.length(list), Err(Unsized::Unknown(_))));
}

#[test]
fn an_object_that_holds_itself_ends() {
    let mut values = Values::new();
    let class = values.class("Foo", &[]);
    let object = values.object(class, (1, 0));
    values.put(object.1 + 40, object);
    values.is(object, "O:3:\"Foo\":1:{s:1:\"p\";r:1;}");
}

#[test]
fn who_serializes_itself_is_unknown() {
    let mut values = Values::new();
    let method = (13, 0x1000);
    for methods in [
        &["__serialize"][..],
        &["__sleep"],
        &["serialize", "unserialize"],
    ] {
        let methods: Vec<_> = methods.iter().map(|name| (*name, method)).collect();
        let class = values.class("Foo", &methods);
        let object = values.object(class, (1, 0));
        let list = values.list(&[object]);
        let found = values.length(list);
        let expected = "it holds an object of Foo, which serializes itself".to_owned();
        assert_eq!(found, Err(Unsized::Unknown(expected)));
    }
    // A method that happens to have such a name.
    let class = values.class("Foo", &[("serialize", method)]);
    let object = values.object(class, (1, 0));
    assert!(values.length(object).is_ok());
    values.0.memory.put(class, &[1]);
    assert!(matches!(values.length(object), Err(Unsized::Unknown(_))));
}

#[test]
fn an_array_that_holds_itself_is_unknown() {
    let mut values = Values::new();
    let list = values.list(&[(1, 0)]);
    let data = list.1 + 16;
    let slot = values.0.memory.u64(data).expect("mapped");
    values.put(slot, list);
    assert!(matches!(values.length(list), Err(Unsized::Unknown(_))));
}
