//! Whether a certificate and a private key in PEM belong together: Go's `tls.X509KeyPair`, whose errors a client of
//! Secrets of type `kubernetes.io/tls` is warned with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// The object identifiers of keys and curves, as DER has them.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const X25519: &[u8] = &[0x2b, 0x65, 0x6e];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const P224: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x21];

/// Tags of DER.
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CURVE: u8 = 0xa0;
const POINT: u8 = 0xa1;
const BITS: u8 = 0x03;

const MISMATCH: &str = "tls: private key does not match public key";
const OTHER_TYPE: &str = "tls: private key type does not match public key type";
const NO_KEY: &str = "tls: failed to parse private key";

/// Why the two cannot be used for TLS.
///
/// # Errors
/// In Go's words.
pub(super) fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = first_certificate(certificate)?;
    let key = first_key(key)?;
    let (rest, certificate) =
        X509Certificate::from_der(&certificate).map_err(|_| "x509: malformed certificate")?;
    if !rest.is_empty() {
        return Err("x509: trailing data".to_owned());
    }
    let key = Key::read(&key)?;
    let subject = certificate.public_key();
    let public = &*subject.subject_public_key.data;
    match (subject.algorithm.algorithm.as_bytes(), key) {
        (RSA, Key::Rsa { modulus, exponent }) => {
            let Ok(PublicKey::RSA(of)) = subject.parsed() else {
                return Err("x509: invalid RSA public key".to_owned());
            };
            let same = bare(of.modulus) == bare(modulus) && bare(of.exponent) == bare(exponent);
            if same { Ok(()) } else { Err(MISMATCH.to_owned()) }
        }
        (EC, Key::Ec { curve, private, point }) => {
            let of = subject.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            if of.is_some_and(|of| of.as_bytes() == curve) && is_on(curve, private, point, public) {
                return Ok(());
            }
            Err(MISMATCH.to_owned())
        }
        (ED25519, Key::Ed25519 { seed }) => {
            Ed25519KeyPair::from_seed_and_public_key(seed, public).map(drop).map_err(|_| MISMATCH.to_owned())
        }
        (RSA | EC | ED25519, _) => Err(OTHER_TYPE.to_owned()),
        _ => Err("tls: unknown public key algorithm".to_owned()),
    }
}

fn first_certificate(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut skipped = Vec::new();
    let mut first = None;
    for (kind, der) in blocks(text) {
        match kind.as_str() {
            "CERTIFICATE" => {
                first.get_or_insert(der);
            }
            _ => skipped.push(kind),
        }
    }
    first.ok_or_else(|| match skipped.as_slice() {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if one.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned()
        }
        all => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
            all.join(" ")
        ),
    })
}

fn first_key(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut skipped = Vec::new();
    for (kind, der) in blocks(text) {
        if kind == "PRIVATE KEY" || kind.ends_with(" PRIVATE KEY") {
            return Ok(der);
        }
        skipped.push(kind);
    }
    Err(match skipped.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        all => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            all.join(" ")
        ),
    })
}

/// The blocks of PEM that are whole, with their types; what is not one is passed over, as Go does.
fn blocks(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = String::from_utf8_lossy(text);
    let mut found = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines() {
        let line = line.trim_end();
        let marked = |mark: &str| line.strip_prefix(mark)?.strip_suffix("-----");
        if let Some(kind) = marked("-----BEGIN ") {
            open = Some((kind, String::new()));
        } else if let Some(kind) = marked("-----END ") {
            let whole = open.take().filter(|(begun, _)| *begun == kind);
            let block = whole.and_then(|(kind, body)| Some((kind.to_owned(), STANDARD.decode(body).ok()?)));
            found.extend(block);
        } else if let Some((_, body)) = open.as_mut()
            // Headers are passed over.
            && !line.contains(':')
        {
            body.extend(line.chars().filter(|c| !matches!(c, ' ' | '\t')));
        }
    }
    found
}

enum Key<'a> {
    Rsa { modulus: &'a [u8], exponent: &'a [u8] },
    Ec { curve: &'a [u8], private: &'a [u8], point: Option<&'a [u8]> },
    Ed25519 { seed: &'a [u8] },
}

impl<'a> Key<'a> {
    /// PKCS#1, PKCS#8 or SEC 1, whatever the block is called.
    fn read(der: &'a [u8]) -> Result<Self, String> {
        if let Some(key) = Self::pkcs1(der) {
            return Ok(key);
        }
        match Self::pkcs8(der) {
            Some(Ok(key)) => Ok(key),
            Some(Err(why)) => Err(why.to_owned()),
            None => Self::sec1(der, None).ok_or_else(|| NO_KEY.to_owned()),
        }
    }

    /// RFC 8017, A.1.2
    fn pkcs1(der: &'a [u8]) -> Option<Self> {
        let mut parts = Parts(whole(der, SEQUENCE)?);
        parts.take(INTEGER)?;
        let (modulus, exponent) = (parts.take(INTEGER)?, parts.take(INTEGER)?);
        // The private exponent, two primes and what is reckoned from them.
        (0..6).try_for_each(|_| parts.take(INTEGER).map(drop))?;
        Some(Self::Rsa { modulus, exponent })
    }

    /// RFC 5208
    fn pkcs8(der: &'a [u8]) -> Option<Result<Self, &'static str>> {
        let mut parts = Parts(whole(der, SEQUENCE)?);
        parts.take(INTEGER)?;
        let mut algorithm = Parts(parts.take(SEQUENCE)?);
        let kind = algorithm.take(OID)?;
        let key = parts.take(OCTETS)?;
        match kind {
            RSA => Self::pkcs1(key).map(Ok),
            EC => Self::sec1(key, algorithm.take(OID)).map(Ok),
            ED25519 => Some(Ok(Self::Ed25519 { seed: whole(key, OCTETS).filter(|seed| seed.len() == 32)? })),
            X25519 => Some(Err("tls: found unknown private key type in PKCS#8 wrapping")),
            _ => None,
        }
    }

    /// RFC 5915; the curve may be told from outside.
    fn sec1(der: &'a [u8], curve: Option<&'a [u8]>) -> Option<Self> {
        let mut parts = Parts(whole(der, SEQUENCE)?);
        parts.take(INTEGER).filter(|version| *version == [1])?;
        let private = parts.take(OCTETS)?;
        let inside = parts.take(CURVE).and_then(|inner| whole(inner, OID));
        let curve = curve.or(inside).filter(|curve| [P224, P256, P384, P521].contains(curve))?;
        // A string of bits begins with how many of the last byte are none.
        let point = parts.take(POINT).and_then(|inner| whole(inner, BITS)).and_then(|bits| bits.get(1..));
        Some(Self::Ec { curve, private, point })
    }
}

/// Whether the private key is that of the public one. Of the curves that `ring` does not have, the private key says which
/// public key is its own; if it does not, nobody is warned.
fn is_on(curve: &[u8], private: &[u8], point: Option<&[u8]>, public: &[u8]) -> bool {
    let algorithm = match curve {
        P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => return point.is_none_or(|point| point == public),
    };
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, &SystemRandom::new()).is_ok()
}

/// A number without its leading zeros.
fn bare(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// What is in a value of DER that fills `der`.
fn whole(der: &[u8], tag: u8) -> Option<&[u8]> {
    let mut parts = Parts(der);
    parts.take(tag).filter(|_| parts.0.is_empty())
}

/// The values of DER, one after another.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The next one, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_first()?;
        let (length, rest) = rest.split_first()?;
        if *first != tag {
            return None;
        }
        let (length, rest) = match *length {
            short @ 0..0x80 => (usize::from(short), rest),
            long => {
                let (digits, rest) =
                    rest.split_at_checked(usize::from(long & 0x7f)).filter(|(d, _)| d.len() <= 3)?;
                (digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)), rest)
            }
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }
}
