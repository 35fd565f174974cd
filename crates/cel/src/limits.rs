//! What bounds an expression: the figures are upstream's (`apiserver/pkg/apis/cel` and cel-go's defaults).

/// The cost that one evaluation may cause.
pub const PER_CALL: u64 = 1_000_000;

/// The cost that all rules on one object, or all expressions of one policy binding, may cause.
pub const PER_OBJECT: u64 = 10_000_000;

/// The cost that the match conditions of one webhook or policy may cause.
pub const MATCH_CONDITIONS: u64 = 2_500_000;

/// The most characters of a source.
pub const SOURCE_CHARS: usize = 100_000;

/// The deepest nesting of a source.
pub const NESTING: u32 = 250;

/// The deepest nesting once macros are expanded.
pub const TREE_DEPTH: u32 = 400;

/// The most expressions in a source once macros are expanded.
pub const TREE_SIZE: usize = 200_000;

/// The most errors that are reported on one source.
pub const ERRORS: usize = 100;

/// The longest line that is shown with an error.
pub const SNIPPET_CHARS: usize = 16_384;

/// The most elements and characters that one evaluation may allocate. Upstream shares concatenated lists and needs no
/// such limit; nothing that stays within the cost comes near it, except by doubling a list over and over.
pub const ALLOCATED: u64 = 20_000_000;

/// The most bytes of a compiled regular expression.
pub const REGEX_BYTES: usize = 2 << 20;

/// The longest text that a message expression may give, in bytes.
pub const MESSAGE_BYTES: usize = 5 * 1024;

/// The most digits after the point that `format` prints.
pub const PRECISION: usize = 1000;

/// The largest request, in bytes, from which sizes without a declared bound are estimated.
pub const REQUEST_BYTES: u64 = 3 * 1024 * 1024;
