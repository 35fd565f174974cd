//! One nftables transaction: what is in it happens at once or not at all.

use std::net::Ipv4Addr;

use crate::message::Writer;
use crate::rule::Rule;

/// A list of changes that the kernel applies in one step.
///
/// Adding what exists is no error (rules excepted: they are appended), deleting what is missing is one. Whoever wants
/// "delete if it exists" of a table adds it first.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) table: String,
    pub(crate) messages: Writer,
    /// What each message does, for error texts; the position is its sequence number minus one.
    pub(crate) labels: Vec<String>,
    pub(crate) last: usize,
    open: Option<OpenElements>,
}

/// Consecutive elements of one set share a message.
#[derive(Clone, Debug)]
struct OpenElements {
    kind: u16,
    set: String,
    body: Writer,
}

/// Where a base chain hangs in the packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// To a local process.
    Input,
    /// From one interface to another.
    Forward,
    /// From a local process.
    Output,
    /// On the way out.
    Postrouting,
}

/// What a set or map is like.
#[derive(Clone, Debug, Default)]
pub struct SetSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The key's fields, see [`Field`].
    pub key: &'a [Field],
    /// The data's fields; none for a set.
    pub data: &'a [Field],
    /// A verdict map (then `data` is empty).
    pub verdicts: bool,
    /// Filled by packets, with elements that expire: at most this many.
    pub dynamic_limit: Option<u32>,
}

/// A field of a key or of data: each takes four bytes, padded with zeroes at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Four bytes in network order.
    Ipv4,
    /// One byte.
    Protocol,
    /// Two bytes in network order.
    Port,
    /// Four bytes in the machine's order.
    Number,
}

impl Field {
    /// The number by which `nft` knows the type, and its length.
    fn kind(self) -> (u32, u32) {
        match self {
            Field::Ipv4 => (7, 4),
            Field::Protocol => (12, 1),
            Field::Port => (13, 2),
            Field::Number => (19, 4),
        }
    }
}

/// The key or the data of an element: fields in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub Vec<u8>);

impl Value {
    /// No field yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an address.
    #[must_use]
    pub fn ipv4(mut self, address: Ipv4Addr) -> Self {
        self.0.extend_from_slice(&address.octets());
        self
    }

    /// Appends a protocol number.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.0.extend_from_slice(&[protocol, 0, 0, 0]);
        self
    }

    /// Appends a port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.0.extend_from_slice(&port.to_be_bytes());
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// The field at `index` (counted in fields) as an address.
    pub fn as_ipv4(&self, index: usize) -> Option<Ipv4Addr> {
        crate::message::array::<4>(&self.0, index * 4).map(Ipv4Addr::from)
    }

    /// The field at `index` as a protocol number.
    pub fn as_protocol(&self, index: usize) -> Option<u8> {
        self.0.get(index * 4).copied()
    }

    /// The field at `index` as a port.
    pub fn as_port(&self, index: usize) -> Option<u16> {
        crate::message::array::<2>(&self.0, index * 4).map(u16::from_be_bytes)
    }

    /// The field at `index` as a number.
    pub fn as_number(&self, index: usize) -> Option<u32> {
        crate::message::array::<4>(&self.0, index * 4).map(u32::from_ne_bytes)
    }
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// This base chain is done with it.
    Accept,
    /// It is gone.
    Drop,
    /// Into a chain, and back here afterwards.
    Jump(String),
    /// Into a chain, and not back.
    Goto(String),
}

impl Verdict {
    pub(crate) fn write(&self, w: &mut Writer) {
        let (code, chain) = match self {
            Verdict::Accept => (1i32, None),
            Verdict::Drop => (0, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        w.nested(2, |w| {
            w.attr(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                w.text(2, chain);
            }
        });
    }
}

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const CREATE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE) as u16;
const APPEND: u16 = CREATE | libc::NLM_F_APPEND as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;

/// A message of elements stays below this, since an attribute's length has 16 bits.
const ELEMENTS_BYTES: usize = 60_000;

impl Batch {
    /// An empty transaction on the `ip` table `table`.
    pub fn new(table: &str) -> Self {
        let mut messages = Writer::default();
        let at = messages.begin(
            libc::NLMSG_MIN_TYPE as u16,
            REQUEST,
            1,
            libc::AF_UNSPEC as u8,
            libc::NFNL_SUBSYS_NFTABLES as u16,
        );
        messages.end(at);
        Self { table: table.to_owned(), messages, labels: vec!["begin".into()], last: 0, open: None }
    }

    /// Whether nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.labels.len() == 1 && self.open.is_none()
    }

    fn message(&mut self, kind: u16, flags: u16, label: String, fill: impl FnOnce(&mut Writer, &str)) {
        self.close_elements();
        self.raw_message(kind, flags, label, fill);
    }

    fn raw_message(&mut self, kind: u16, flags: u16, label: String, fill: impl FnOnce(&mut Writer, &str)) {
        self.labels.push(label);
        let seq = u32::try_from(self.labels.len()).expect("fewer than 2^32 messages");
        self.last = self.messages.bytes.len();
        let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind;
        let at = self.messages.begin(kind, flags, seq, libc::NFPROTO_IPV4 as u8, 0);
        fill(&mut self.messages, &self.table);
        self.messages.end(at);
    }

    /// Adds the table.
    pub fn add_table(&mut self) {
        self.message(NEW_TABLE, CREATE, "add table".into(), |w, table| {
            w.text(1, table);
            w.be32(2, 0);
        });
    }

    /// Deletes the table with all that is in it.
    pub fn delete_table(&mut self) {
        self.message(DELETE_TABLE, REQUEST, "delete table".into(), |w, table| w.text(1, table));
    }

    /// Adds a chain that rules and verdicts can send packets to.
    pub fn add_chain(&mut self, name: &str) {
        self.message(NEW_CHAIN, CREATE, format!("add chain {name}"), |w, table| {
            w.text(1, table);
            w.text(3, name);
        });
    }

    /// Adds a base chain: `kind` is `nat` or `filter`.
    pub fn add_base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        self.message(NEW_CHAIN, CREATE, format!("add base chain {name}"), |w, table| {
            w.text(1, table);
            w.text(3, name);
            w.nested(4, |w| {
                w.be32(1, hook as u32);
                w.attr(2, &priority.to_be_bytes());
            });
            w.be32(5, 1);
            w.text(7, kind);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.message(DELETE_RULE, REQUEST, format!("flush chain {name}"), |w, table| {
            w.text(1, table);
            w.text(2, name);
        });
    }

    /// Deletes a chain; nothing may refer to it any more.
    pub fn delete_chain(&mut self, name: &str) {
        self.message(DELETE_CHAIN, REQUEST, format!("delete chain {name}"), |w, table| {
            w.text(1, table);
            w.text(3, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        self.message(NEW_RULE, APPEND, format!("add rule to {chain}"), |w, table| {
            w.text(1, table);
            w.text(2, chain);
            w.nested(4, |w| rule.write(w));
        });
    }

    /// Adds a set or map.
    pub fn add_set(&mut self, spec: &SetSpec<'_>) {
        let id = u32::try_from(self.labels.len()).expect("fewer than 2^32 messages");
        self.message(NEW_SET, CREATE, format!("add set {}", spec.name), |w, table| {
            let map = spec.verdicts || !spec.data.is_empty();
            let dynamic = spec.dynamic_limit.is_some();
            let flags = if map { 8 } else { 0 } | if dynamic { 0x30 } else { 0 };
            w.text(1, table);
            w.text(2, spec.name);
            w.be32(3, flags);
            let (kind, len) = layout(spec.key);
            w.be32(4, kind);
            w.be32(5, len);
            if spec.verdicts {
                w.be32(6, 0xffff_ff00);
                w.be32(7, 0);
            } else if map {
                let (kind, len) = layout(spec.data);
                w.be32(6, kind);
                w.be32(7, len);
            }
            if let Some(limit) = spec.dynamic_limit {
                w.nested(9, |w| w.be32(1, limit));
            }
            w.be32(10, id);
        });
    }

    /// Adds an element to a set.
    pub fn add(&mut self, set: &str, key: &Value) {
        self.element(NEW_ELEMENT, set, key, |_| {});
    }

    /// Adds an element to a map.
    pub fn add_data(&mut self, map: &str, key: &Value, data: &Value) {
        self.element(NEW_ELEMENT, map, key, |w| w.nested(2, |w| w.attr(1, &data.0)));
    }

    /// Adds an element to a verdict map.
    pub fn add_verdict(&mut self, map: &str, key: &Value, verdict: &Verdict) {
        self.element(NEW_ELEMENT, map, key, |w| w.nested(2, |w| verdict.write(w)));
    }

    /// Deletes an element of a set or map.
    pub fn delete(&mut self, set: &str, key: &Value) {
        self.element(DELETE_ELEMENT, set, key, |_| {});
    }

    fn element(&mut self, kind: u16, set: &str, key: &Value, data: impl FnOnce(&mut Writer)) {
        let fits = self
            .open
            .as_ref()
            .is_some_and(|o| o.kind == kind && o.set == set && o.body.bytes.len() < ELEMENTS_BYTES);
        if !fits {
            self.close_elements();
        }
        let open = self.open.get_or_insert_with(|| OpenElements {
            kind,
            set: set.to_owned(),
            body: Writer::default(),
        });
        open.body.nested(1, |w| {
            w.nested(1, |w| w.attr(1, &key.0));
            data(w);
        });
    }

    fn close_elements(&mut self) {
        let Some(OpenElements { kind, set, body }) = self.open.take() else { return };
        let (what, flags) = if kind == NEW_ELEMENT { ("add to", CREATE) } else { ("delete from", REQUEST) };
        self.raw_message(kind, flags, format!("{what} {set}"), |w, table| {
            w.text(1, table);
            w.text(2, &set);
            w.nested(3, |w| w.bytes.extend_from_slice(&body.bytes));
        });
    }

    /// The whole transaction as it is sent; the last change asks for an acknowledgement.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        self.close_elements();
        let flags_at = self.last + 6;
        let flags = u16::from_ne_bytes([self.messages.bytes[flags_at], self.messages.bytes[flags_at + 1]])
            | libc::NLM_F_ACK as u16;
        self.messages.bytes[flags_at..flags_at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.labels.push("end".into());
        let seq = u32::try_from(self.labels.len()).expect("fewer than 2^32 messages");
        let at = self.messages.begin(
            libc::NLMSG_MIN_TYPE as u16 + 1,
            REQUEST,
            seq,
            libc::AF_UNSPEC as u8,
            libc::NFNL_SUBSYS_NFTABLES as u16,
        );
        self.messages.end(at);
        (self.messages.bytes, self.labels)
    }
}

/// The type number and the length in bytes of concatenated fields. A single field is not padded.
fn layout(fields: &[Field]) -> (u32, u32) {
    match fields {
        [one] => one.kind(),
        many => (
            many.iter().fold(0, |all, f| (all << 6) | f.kind().0),
            u32::try_from(many.len() * 4).expect("a handful of fields"),
        ),
    }
}
