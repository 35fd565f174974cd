//! Netlink framing: headers, attributes, and reading them back (netlink(7)).

/// Grows one netlink message or several in a row.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

/// Set in an attribute's type if its payload is attributes.
const NESTED: u16 = 0x8000;

impl Writer {
    /// Starts a message; [`Writer::end`] closes it. `family` and `resource` go to the `nfgenmsg`.
    pub fn begin(&mut self, kind: u16, flags: u16, seq: u32, family: u8, resource: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        at
    }

    /// Writes the length of the message that began at `at`.
    pub fn end(&mut self, at: usize) {
        let len = u32::try_from(self.bytes.len() - at).expect("a message is shorter than 4 GiB");
        self.bytes[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// An attribute with `payload`, padded to four bytes.
    pub fn attr(&mut self, kind: u16, payload: &[u8]) {
        let len = u16::try_from(payload.len() + 4).expect("an attribute is shorter than 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    /// A number in network order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A number in network order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A string with its terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// An attribute whose payload is what `fill` writes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - at).expect("a nested attribute is shorter than 64 KiB");
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// One message of an answer, without its headers.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// Everything after the netlink header.
    pub body: &'a [u8],
}

/// The messages of one datagram. A truncated one ends the sequence.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(array(datagram, 0)?)).ok()?;
        if len < 16 || len > datagram.len() {
            return None;
        }
        let message = Message {
            kind: u16::from_ne_bytes(array(datagram, 4)?),
            flags: u16::from_ne_bytes(array(datagram, 6)?),
            seq: u32::from_ne_bytes(array(datagram, 8)?),
            body: &datagram[16..len],
        };
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: type without flags, payload.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(array(bytes, 0)?));
        if len < 4 || len > bytes.len() {
            return None;
        }
        let kind = u16::from_ne_bytes(array(bytes, 2)?) & 0x3fff;
        let payload = &bytes[4..len];
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The payload of the first attribute of type `kind`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, payload)| payload)
}

/// `N` bytes at `at`.
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// A string attribute's text.
pub fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.strip_suffix(&[0]).unwrap_or(payload)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_written_are_read_back() {
        let mut w = Writer::default();
        let at = w.begin(0x0a00, 1, 7, 2, 0);
        w.text(1, "abc");
        w.nested(2, |w| w.be32(1, 5));
        w.end(at);
        let all: Vec<_> = messages(&w.bytes).collect();
        assert_eq!((all.len(), all[0].kind, all[0].seq), (1, 0x0a00, 7));
        let body = &all[0].body[4..];
        assert_eq!(text(attribute(body, 1).expect("name")), "abc");
        assert_eq!(attribute(attribute(body, 2).expect("nested"), 1), Some(&5u32.to_be_bytes()[..]));
        assert_eq!(attribute(body, 3), None);
    }

    #[test]
    fn torn_datagrams_end_without_a_panic() {
        let mut w = Writer::default();
        let at = w.begin(1, 0, 1, 2, 0);
        w.text(1, "abcdef");
        w.end(at);
        for cut in 0..w.bytes.len() {
            assert_eq!(messages(&w.bytes[..cut]).count(), 0);
            for _ in attributes(&w.bytes[..cut]) {}
        }
    }
}
