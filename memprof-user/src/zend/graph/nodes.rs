//! What the walk remembers: the containers that it reached, each with the one that it was reached from.

/// A node's number.
pub(super) type Number = u32;

/// The owner of nodes that have none.
pub(super) const NONE: Number = u32::MAX;

/// One array, object or large string, or one of the places where the walk begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Where it is in the process; 0 for [`Kind::Constants`], [`Kind::Engine`] and [`Kind::Temporaries`].
    pub(super) address: u64,
    /// How its owner leads to it.
    pub(super) key: Key,
    /// Bytes of it and of all that it holds and that has no node of its own. When the walk is done,
    /// those of its nodes are added.
    pub(super) bytes: u64,
    /// What it was first reached from; nodes always come behind their owner.
    pub(super) owner: Number,
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Object,
    String,
    /// A class: its static properties and constants.
    Class,
    /// A function: its static variables, and the local ones of its frames.
    Function,
    /// One variable of a function, in all of its frames.
    Variable,
    /// `$GLOBALS`
    Globals,
    /// The constants that are no class's.
    Constants,
    /// The objects of one class that nothing leads to.
    Unreached,
    /// PHP's own structures and those of extensions.
    Engine,
    /// What PHP works on at the moment, in no variable.
    Temporaries,
}

impl Kind {
    /// Whether it is a value, and not a place where the walk begins.
    pub(super) fn is_value(self) -> bool {
        matches!(self, Kind::Array | Kind::Object | Kind::String)
    }
}

/// How an owner leads to what it holds. Names are `zend_string *`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// It is the same as its owner, as far as a script can tell.
    Same,
    /// `[7]`
    Index(i64),
    /// `['name']`
    Text(u64),
    /// `->name`, by the number of its slot.
    Slot(u32),
    /// `->name` that the class does not declare.
    Dynamic(u64),
    /// `::$name`
    StaticProperty(u64),
    /// `::NAME`
    ClassConstant(u64),
    /// `NAME`
    Constant(u64),
    /// `static $name`
    StaticVariable(u64),
    /// `$name`
    Variable(u64),
    /// `$this`
    This,
    /// An argument without a name of its own, from 1 on.
    Argument(u32),
    /// A variable inside of a closure, a generator or a fiber.
    Bound(u64),
    /// The same for `$this`.
    BoundThis,
    /// What an object of PHP's own or of an extension's holds inside: the how manieth of it.
    Inside(u32),
    /// An object's handle.
    Handle(u32),
}

impl Key {
    /// The `zend_string *` that it is named by.
    pub(super) fn name(self) -> Option<u64> {
        match self {
            Key::Text(name)
            | Key::Dynamic(name)
            | Key::StaticProperty(name)
            | Key::ClassConstant(name)
            | Key::Constant(name)
            | Key::StaticVariable(name)
            | Key::Variable(name)
            | Key::Bound(name) => Some(name),
            _ => None,
        }
    }
}

/// Blocks of the heap by what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Array,
    String,
    Object,
    Closure,
    Reference,
    VmStack,
    ObjectStore,
    Code,
    Other,
    FreeSlot,
    ChunkHeader,
}

/// How many kinds of blocks there are.
const KINDS: usize = 11;

/// Counts and bytes by kind of block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks([Sum; KINDS]);

/// So many blocks with so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Bytes of their slots.
    pub bytes: u64,
}

impl Blocks {
    #[inline]
    pub(super) fn add(&mut self, block: Block, count: u64, bytes: u64) {
        let sum = &mut self.0[block as usize];
        sum.count += count;
        sum.bytes = sum.bytes.saturating_add(bytes);
    }

    pub(super) fn of(&self, block: Block) -> Sum {
        self.0[block as usize]
    }

    pub(super) fn bytes(&self) -> u64 {
        let bytes = self.0.iter().map(|sum| sum.bytes);
        bytes.fold(0, u64::saturating_add)
    }
}
