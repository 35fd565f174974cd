//! Secrets of type `kubernetes.io/tls` that cannot be used: the client is warned as Go's `tls.X509KeyPair` complains.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_apiserver::testing;
use gantry_base::Tasks;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::json;
use std::time::Duration;

/// Made for this test; `rcgen` makes neither.
const RSA: &str = "-----BEGIN CERTIFICATE-----
MIIDBzCCAe+gAwIBAgIUSRRqZz7ZTe2bS6nByJm4ohxtsX4wDQYJKoZIhvcNAQEL
BQAwEjEQMA4GA1UEAwwHZXhhbXBsZTAgFw0yNjExMjExNzMzMDBaGA8yMTI2MTAy
ODE3MzMwMFowEjEQMA4GA1UEAwwHZXhhbXBsZTCCASIwDQYJKoZIhvcNAQEBBQAD
ggEPADCCAQoCggEBANGhOhQGUlTi9zdxcMKlUVDaiE+/V68TkRitP1XpIjrj0akD
3yU9kFrNoT+qqVWkFp7BjyZtyVEp6XZWsy16QGtQaJJu+z3O70yLMCukYF5zq/oh
aQz+mBcBFA1FKEMtzxWxWaW1KsFt3sPsHiKDpB0BIZ2UcYV/x7pHnG7IKKtIBulM
HJrGhkwvqiKdPF8MwTvNZpGtM4903bXP0u1QwnBNOduYyutPHLtvz+JL3lN9l8v6
gwXjpDyCEy28CEiRMvLaKZAFKhW71HugeSRlFpcKmRus8xxqybHDD1VgKO8JrjmK
wmsrSE0yOPpaGlsva+EI00Zb2O1T0WOELVbf9ckCAwEAAaNTMFEwHQYDVR0OBBYE
FJlF8n9zlXH9m4TyhAsYjpP0oJepMB8GA1UdIwQYMBaAFJlF8n9zlXH9m4TyhAsY
jpP0oJepMA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZIhvcNAQELBQADggEBAEcFEKMu
RDjrqNCNfYPT5DreqxkzkPMQs5ku0qYCOL5VyA8aYnylm6xB36nWn+AelYX+U4ZZ
40H5iXTu28D7XQq2o7JF81z2K3KywTWlWE2gL+LBXhlx1FunlAws6TDvb+Vee0+w
vHzoWjKCN7OL1tZqP4xo7CJqS6E+5EseWsnCaf06FD2Tr89nLmJcAKQx2J5Tu7AS
gYbWbucvbi92RMEPoexxvHlqQFa7aNcJnNGV+bhmh+rO1NVeovmuh/vvbb0qaE+i
LwXo2opq0zDizrAQDDVhU3UTZX6nvXFlMfOgyRv2fCDc81pYGJ4LMnR+MfVIKkkS
uaCl1L1CVpEAzvA=
-----END CERTIFICATE-----
";
const RSA_KEY: &str = "-----BEGIN RSA PRIVATE KEY-----
MIIEowIBAAKCAQEA0aE6FAZSVOL3N3FwwqVRUNqIT79XrxORGK0/VekiOuPRqQPf
JT2QWs2hP6qpVaQWnsGPJm3JUSnpdlazLXpAa1Bokm77Pc7vTIswK6RgXnOr+iFp
DP6YFwEUDUUoQy3PFbFZpbUqwW3ew+weIoOkHQEhnZRxhX/Hukecbsgoq0gG6Uwc
msaGTC+qIp08XwzBO81mka0zj3Tdtc/S7VDCcE0525jK608cu2/P4kveU32Xy/qD
BeOkPIITLbwISJEy8topkAUqFbvUe6B5JGUWlwqZG6zzHGrJscMPVWAo7wmuOYrC
aytITTI4+loaWy9r4QjTRlvY7VPRY4QtVt/1yQIDAQABAoIBAAtHsC7cqjh8IA5h
Mc6fg7EkmTolUywOEvwvcl2Glntxv9nm5e6Ekgx4zSj2X3dGxZrUUoYgWTlfVnsy
LiEP14COypm6lBVe2byWLsjiZvceJU5n1tXGq1ttiO0v3/tBb0e9C9RhW8Qdy+Ni
BLsZt06CPZNTpgondpFdAhtp9NpGhHzKgjHBE3BipKmXPCMG99/sgw1iV25Uf+3H
lPhvGnzjpvqyNVcVajhf7QN69fSOefKzX6H5xLdvKPnBTiO1xLK8v8TnC5EI6J5x
p3ZeFXA5Xzqb8bw21nzVqib4BEZMarl4WVPljyPSlgmazq76o//H/latabjtEH7n
uKnI/sMCgYEA7NIbCFwwe1t4Do1AFfOFfyiXuZIa8sFVo1MceyQgoKYdYrQtbhLJ
BFW0ylx+BdWRwI9E36m21bipP8IHKjvpLPKy3ekh1rw+mOCBWUqKZi5ksEABCXZm
5jJInIo7bHllpdszbkC5hCrQ+JyzBayYanX0tPMXzkh7PMLWcSTZBBcCgYEA4pti
XvXKsfGeYM1gglcfPTgYYtoVqQlc8ya83urBy8RxHH3T94VQPtCBLEIKSMGL+yhu
w0/grcLCCcNOX5dHoFVYcM8CXIbcm/KmMN9eNLAFX4NZa/pmRi0Jo7YwJuUFajIy
+WgMRzW+8XFyERqoW13wk0v8+ucjnIGXzpjqoR8CgYAJKB6PdjERs/myZlfCAYZ5
4jHrpPCRzlPnWsFRKZZxX7rnJBxVkzheiInTATyGMTnPfjqlg0Rkgx1YL8JjKanc
aQ3tcqQyT1kERDn8H9u2E7kk73Sazw8ve2Y/V0Dw8sixXwZgDvSdXaJy2mw5nfDO
vPzXOkcDXN4W/VmZSllxxQKBgQCMzB8DAZU/mvDdFL6yPY+bag883GQ48yhdq+QO
Xa6r/RKKsWPSl3KUlNittxrMufVPyH+Ju0fOrwQBLOi1XDmU1XJuJTFCbEkGXG4G
T8Mo2XV9Mw+Ml7iUQceLgNfKUuJaaXZioNOAK1TIj8Rf/EA/BM9FtiEphBQMWjkI
lNqz4QKBgBdV1bmCI0IKe+QE24vstHJvjUrg8B0WsmZQ6nJenQTuwaXPD43j0FoE
H/YLIuPEzdtqRvh07k3JZEJ3Of0syy/FLC1l61vf+3d7g1A6ekgfZpqYZ6VeGLFO
d7TwbIpVtRbgjQrQPvow84MQoGgG+FgqZLYqYUDhRDzhz5JQccLj
-----END RSA PRIVATE KEY-----
";
const P521: &str = "-----BEGIN CERTIFICATE-----
MIICAzCCAWSgAwIBAgIUaQuwbeaR7NyK8qtSTa8oZSCIwC0wCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHZXhhbXBsZTAgFw0yNjExMjExNzMzMDBaGA8yMTI2MTAyODE3
MzMwMFowEjEQMA4GA1UEAwwHZXhhbXBsZTCBmzAQBgcqhkjOPQIBBgUrgQQAIwOB
hgAEAYK3M0SoIkq2gS4COYgkzBEVTrFNwuL1uMxFuQ+SJRzC46O4MPrJ4NyXhzXZ
BHlnG2BhV2sTWp6juLF3Wlz5X3vBAU+CKSy9wxMSsG4xvGjF0E2Dc/78fdJROeD5
o2oF+8EkCMQ4Am83kQfPCE8rg5QyMND2vG+XjKaOxr35uNg3RMDuo1MwUTAdBgNV
HQ4EFgQUW2tC+1gY7Wa6Iq+oT1oEIzMeCtMwHwYDVR0jBBgwFoAUW2tC+1gY7Wa6
Iq+oT1oEIzMeCtMwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgOBjAAwgYgC
QgH7CP9M8vwDfSkT8+sjAM+VYVuB3WG6BucFPyvrez4kmw2F9iHObb2nxzQ/E2wb
YjsZRtbEup4Nfi+Tdr/j1EXZygJCAKQ30LhqzHEbujiXw7bY9WO7IhCTNfJZa/Cs
zYc433+ALbx2sbdwi7312rWxvW35iSMBrCsYpxuTj0cWXkIF6cNS
-----END CERTIFICATE-----
";
const P521_KEY: &str = "-----BEGIN EC PRIVATE KEY-----
MIHcAgEBBEIB5kZ35BucCdw0Wqolb+zqE3//k3zA/5NeeIVjW5ZQ4DvXAltMGrx0
jF2ISfV2Af3aX+aw78AcGgl2R/12GpR3LOWgBwYFK4EEACOhgYkDgYYABAGCtzNE
qCJKtoEuAjmIJMwRFU6xTcLi9bjMRbkPkiUcwuOjuDD6yeDcl4c12QR5ZxtgYVdr
E1qeo7ixd1pc+V97wQFPgiksvcMTErBuMbxoxdBNg3P+/H3SUTng+aNqBfvBJAjE
OAJvN5EHzwhPK4OUMjDQ9rxvl4ymjsa9+bjYN0TA7g==
-----END EC PRIVATE KEY-----
";

/// A certificate and its key.
fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
}

#[tokio::test]
async fn a_certificate_without_its_key_is_warned_of() {
    const SWITCHED: &str = "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched";
    const MISMATCH: &str = "tls: private key does not match public key";
    const OTHER_TYPE: &str = "tls: private key type does not match public key type";
    const NO_KEY: &str = "tls: failed to parse private key";
    let (p256, p256_key) = pair(&PKCS_ECDSA_P256_SHA256);
    let (_, p256_other) = pair(&PKCS_ECDSA_P256_SHA256);
    let (p384, p384_key) = pair(&PKCS_ECDSA_P384_SHA384);
    let (ed, ed_key) = pair(&PKCS_ED25519);
    let (_, ed_other) = pair(&PKCS_ED25519);
    let noise = pem("CERTIFICATE REQUEST", b"x");
    // X25519 in PKCS#8.
    let x25519 = [
        &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20][..],
        &[7; 32],
    ]
    .concat();
    let chain = format!("{noise}{p256}{p384}");
    let (noisy, noisy_key) = (format!("{noise}{p256}"), format!("{noise}{p256_key}"));
    let (malformed, nonsense) = (pem("CERTIFICATE", b"nonsense"), pem("PRIVATE KEY", b"nonsense"));
    let x25519 = pem("PRIVATE KEY", &x25519);
    let cases: [(&str, &str, &str, Option<&str>); 22] = [
        ("p256", &p256, &p256_key, None),
        ("p384", &p384, &p384_key, None),
        ("ed25519", &ed, &ed_key, None),
        ("rsa", RSA, RSA_KEY, None),
        ("p521", P521, P521_KEY, None),
        ("chain", &chain, &noisy_key, None),
        ("empty", "", "", Some("tls: failed to find any PEM data in certificate input")),
        ("text", "MOCK CERT", "MOCK KEY", Some("tls: failed to find any PEM data in certificate input")),
        ("no-key", &p256, "", Some("tls: failed to find any PEM data in key input")),
        ("switched", &p256_key, &p256, Some(SWITCHED)),
        (
            "two-certificates",
            &p256,
            &p256,
            Some("tls: found a certificate rather than a key in the PEM for the private key"),
        ),
        (
            "skipped",
            &noise,
            &p256_key,
            Some(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [CERTIFICATE REQUEST]",
            ),
        ),
        (
            "skipped-key",
            &p256,
            &noisy,
            Some(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [CERTIFICATE REQUEST CERTIFICATE]",
            ),
        ),
        ("malformed", &malformed, &p256_key, Some("x509: malformed certificate")),
        ("nonsense", &p256, &nonsense, Some(NO_KEY)),
        ("dh-key", &p256, &x25519, Some("tls: found unknown private key type in PKCS#8 wrapping")),
        ("other", &p256, &p256_other, Some(MISMATCH)),
        ("other-curve", &p256, &p384_key, Some(MISMATCH)),
        ("other-ed25519", &ed, &ed_other, Some(MISMATCH)),
        ("rsa-for-ec", &p256, RSA_KEY, Some(OTHER_TYPE)),
        ("ec-for-rsa", RSA, &p256_key, Some(OTHER_TYPE)),
        ("ed25519-for-ec", &p256, &ed_key, Some(OTHER_TYPE)),
    ];
    let tasks = Tasks::new();
    let (server, _) = testing::in_memory(&tasks).await;
    for (name, certificate, key, want) in cases {
        let secret = |kind: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{name}-{}", kind.len())},
                "type": kind, "stringData": {"tls.crt": certificate, "tls.key": key},
            })
        };
        let path = "/api/v1/namespaces/default/secrets";
        let body = secret("kubernetes.io/tls");
        let one = format!("{path}/{}", body["metadata"]["name"].as_str().expect("a name"));
        for (method, path) in [("POST", path), ("PUT", one.as_str())] {
            let answer = testing::http(&server, method, path, &[], body.to_string()).await;
            assert!(matches!(answer.code, 200 | 201), "{name}: {}", answer.json());
            let warned = answer.headers.get("warning").map(|v| v.to_str().expect("text").to_owned());
            let want = want.map(|why| format!("299 - \"{}\"", why.replace('"', "\\\"")));
            assert_eq!(warned, want, "{name}");
        }
        let opaque = testing::http(&server, "POST", path, &[], secret("Opaque").to_string()).await;
        assert_eq!((opaque.code, opaque.headers.get("warning")), (201, None), "{name}");
    }
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}
