//! Private signing keys that were made elsewhere, read from PEM: PKCS#1 and PKCS#8 for RSA, SEC1 and PKCS#8 for P-384.

use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use rsa::traits::PublicKeyParts as _;
use rustls::pki_types::PrivateKeyDer as PemKey;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::crypto::{Algorithm, KeyPair, KeyType, PrivateKeyDer};

/// Object identifiers as they stand in DER: RSA keys, EC keys, the curve P-384.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// Why a PEM text gives no signing key. No text repeats anything of what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Protected by a passphrase.
    #[error(
        "the private key is protected by a passphrase, which cannot be asked for here; write it without one \
         (`openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW`), import it, then destroy that file"
    )]
    Encrypted,
    /// No private key in it.
    #[error(
        "there is no private key in PEM form: wanted is a text with `BEGIN PRIVATE KEY`, `BEGIN RSA PRIVATE KEY` or \
         `BEGIN EC PRIVATE KEY`"
    )]
    NoKey,
    /// Which of them?
    #[error("there are several private keys in it; give a file with one")]
    Several,
    /// Too short to be safe, and for EHRs to accept.
    #[error("the RSA key has {0} bits, and below 2048 no EHR should accept a signature; make a new one")]
    Weak(usize),
    /// A length that is not used.
    #[error("the RSA key has {0} bits; wanted are 2048, 3072 or 4096")]
    Length(usize),
    /// Not for RS384 or ES384.
    #[error(
        "this kind of key signs neither RS384 nor ES384, and SMART knows no other; wanted is RSA or P-384"
    )]
    Kind,
    /// It does not hold together.
    #[error(
        "the private key cannot be used: it is damaged, or (for P-384) lacks its public half; \
         `openssl pkey -in KEY -check` tells which"
    )]
    Unusable,
}

/// Reads the one private key of a PEM text; what else is in it, such as certificates, does not matter.
pub fn read_private_key(pem: &str) -> Result<(PrivateKeyDer, KeyType), ImportError> {
    // PKCS#8 says it in its label; the older form in a header of RFC 1421, which the PEM reader takes for base64.
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(ImportError::Encrypted);
    }
    let mut found = PemKey::pem_slice_iter(pem.as_bytes());
    let key = found.next().ok_or(ImportError::NoKey)?.map_err(|_| ImportError::Unusable)?;
    if found.next().is_some() {
        return Err(ImportError::Several);
    }
    match &key {
        PemKey::Pkcs1(der) => rsa_key(rsa::PrivateKey::from_pkcs1_der(der.secret_pkcs1_der())),
        PemKey::Pkcs8(der) => match rsa::PrivateKey::from_pkcs8_der(der.secret_pkcs8_der()) {
            Ok(key) => rsa_key(Ok::<_, rsa::pkcs8::Error>(key)),
            Err(_) => ec_key(Zeroizing::new(der.secret_pkcs8_der().to_vec())),
        },
        PemKey::Sec1(der) => ec_key(p384_as_pkcs8(der.secret_sec1_der())),
        _ => Err(ImportError::Kind),
    }
}

fn rsa_key<E>(key: Result<rsa::PrivateKey, E>) -> Result<(PrivateKeyDer, KeyType), ImportError> {
    let key = key.map_err(|_| ImportError::Unusable)?;
    let kind = match key.n().bit_width() as usize {
        2048 => KeyType::Rsa2048,
        3072 => KeyType::Rsa3072,
        4096 => KeyType::Rsa4096,
        bits if bits < 2048 => return Err(ImportError::Weak(bits)),
        bits => return Err(ImportError::Length(bits)),
    };
    let der = key.to_pkcs8_der().map_err(|_| ImportError::Unusable)?;
    let der = Zeroizing::new(der.as_bytes().to_vec());
    // ring has its own demands, such as a public exponent of at least 65537.
    KeyPair::from_pkcs8(&der).map_err(|_| ImportError::Unusable)?;
    Ok((der, kind))
}

fn ec_key(der: PrivateKeyDer) -> Result<(PrivateKeyDer, KeyType), ImportError> {
    let has = |oid: &[u8]| der.windows(oid.len()).any(|part| part == oid);
    match KeyPair::from_pkcs8(&der) {
        Ok(pair) if pair.algorithm() == Algorithm::Es384 => Ok((der, KeyType::EcP384)),
        Err(_) if has(RSA) || has(P384) => Err(ImportError::Unusable),
        Ok(_) | Err(_) => Err(ImportError::Kind),
    }
}

/// SEC1 (RFC 5915) is the inner part of PKCS#8 (RFC 5208); a key of another curve will not open as P-384.
fn p384_as_pkcs8(sec1: &[u8]) -> PrivateKeyDer {
    let algorithm = der(0x30, &[&der(0x06, &[EC]), &der(0x06, &[P384])]);
    der(0x30, &[&der(0x02, &[&[0]]), &algorithm, &der(0x04, &[sec1])])
}

/// One DER element of a tag and the joined parts.
fn der(tag: u8, parts: &[&[u8]]) -> PrivateKeyDer {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(length + 10));
    out.push(tag);
    let bytes = length.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    // X.690 section 8.1.3: short lengths stand for themselves, longer ones say how many bytes they take.
    if length > 0x7f {
        out.push(0x80 + u8::try_from(significant.len()).unwrap_or(0x7f));
    }
    out.extend_from_slice(significant);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Random, base64};
    use rsa::pkcs1::EncodeRsaPrivateKey as _;

    /// 1024 bits, which our own key maker refuses to make.
    const WEAK: &str = "MIICWwIBAAKBgQCobzg0pdmpaaJV/mvv20kisQIsz8VOT1Qn5TNyJG3eKulwAPf72BgdLlOkCwtkLXHLAseusf8Bxd8qxKL0de/y\
        EVoYdaND/WoWgcVbwqHoohXHsothLfkFbwhE3ri/gYJ4EsOGWvAZJgCd6i4FfYAG6HQI/y4CXw+m9X8yQ8IzUwIDAQABAoGAf3e0\
        BHvjDoen2AZ0LxA39+4XZExU2F/Go26ckWwqTXESOrYw9cHi9eqCV+oX09dkf6t57KY+A1x4+IfZfsHmNIOUx6YMS1rxPod4Mp8x\
        8B5WuSTOiAhb86MytoSQlJJk5hx07/0R4W/XwrLozRVIHIm2GfZ+qNBvNp8sGDDy7nECQQDeG4tPXvx97+R+tvEWsen6VkACrmvb\
        c6Z2mvmx6j5a3f9uN59mC/2Da5gRTt9YQiRlo/fCpjE345PLB0V3Qb3rAkEAwiL6FgNcF26LDmSBr2iJhYcN8AC786KkdyhvJmPp\
        Wn+n9mYglKinbEvpPkYg0CgpGhs6I5oZCcWDdwLmNmA+OQJACQucH85hgAt+Bb8TkHYMblqG3tUVpWlPVTM4igtdILw7w9RWFITW\
        fTyrg8DvjZub+du0omO8S2dkRHd2V8YAowJAFUHPMGndw5MPFtxaduJzbHOFSypJajv81i9PPFzkSEyCD7DPEHgHHQyS1YbIQQKk\
        vX8NtqhA5ZkC9B0VKA8RwQJAYp4nfrsVYvgZPq/CHiD9CTZBunWBAkyTJAtIMnGjLB6igbnnRzLHBrIGKDBDEGzbs3JL4eLStlO3\
        xqX3RiTmiQ==";

    fn pem(label: &str, der: &[u8]) -> String {
        let body = base64(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn made(kind: KeyType) -> PrivateKeyDer {
        KeyPair::generate(kind, &Random::seeded(11)).expect("a key")
    }

    /// The `ECPrivateKey` inside of ring's PKCS#8, which has the public half.
    fn sec1(pkcs8: &[u8]) -> &[u8] {
        let start = pkcs8.windows(2).rposition(|pair| pair == [0x02, 0x01]).expect("its version") - 3;
        &pkcs8[start..]
    }

    fn kid(der: &[u8]) -> String {
        KeyPair::from_pkcs8(der).expect("usable").kid().to_owned()
    }

    #[test]
    fn every_common_form_gives_the_same_key() {
        let rsa = made(KeyType::Rsa2048);
        let pkcs1 = rsa::PrivateKey::from_pkcs8_der(&rsa).expect("a key").to_pkcs1_der().expect("encoded");
        let ec = made(KeyType::EcP384);
        for (text, original, kind) in [
            (pem("PRIVATE KEY", &rsa), &rsa, KeyType::Rsa2048),
            (pem("RSA PRIVATE KEY", pkcs1.as_bytes()), &rsa, KeyType::Rsa2048),
            (pem("PRIVATE KEY", &ec), &ec, KeyType::EcP384),
            (pem("EC PRIVATE KEY", sec1(&ec)), &ec, KeyType::EcP384),
            (
                format!("Bag Attributes\n{}{}", pem("CERTIFICATE", b"any"), pem("PRIVATE KEY", &ec)),
                &ec,
                KeyType::EcP384,
            ),
        ] {
            let (der, found) = read_private_key(&text).expect("read");
            assert_eq!((kid(&der), found), (kid(original), kind));
        }
    }

    #[test]
    fn what_cannot_sign_for_an_ehr_is_refused_with_its_reason() {
        let ec = pem("PRIVATE KEY", &made(KeyType::EcP384));
        let odd = rsa::PrivateKey::new(&mut Random::seeded(13), 2560).expect("a key");
        let of =
            |key: &rsa::PrivateKey| pem("RSA PRIVATE KEY", key.to_pkcs1_der().expect("encoded").as_bytes());
        let p256 = made(KeyType::EcP256);
        for (text, expected) in [
            (String::new(), ImportError::NoKey),
            (pem("CERTIFICATE", b"any"), ImportError::NoKey),
            (pem("PUBLIC KEY", b"any"), ImportError::NoKey),
            (pem("ENCRYPTED PRIVATE KEY", b"any"), ImportError::Encrypted),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                 -----END RSA PRIVATE KEY-----\n"
                    .to_owned(),
                ImportError::Encrypted,
            ),
            (format!("{ec}{ec}"), ImportError::Several),
            (
                format!("-----BEGIN RSA PRIVATE KEY-----\n{WEAK}\n-----END RSA PRIVATE KEY-----\n"),
                ImportError::Weak(1024),
            ),
            (of(&odd), ImportError::Length(2560)),
            (pem("PRIVATE KEY", &p256), ImportError::Kind),
            (pem("EC PRIVATE KEY", sec1(&p256)), ImportError::Unusable),
            (pem("PRIVATE KEY", b"rubbish"), ImportError::Kind),
            (pem("RSA PRIVATE KEY", b"rubbish"), ImportError::Unusable),
            (pem("EC PRIVATE KEY", b"rubbish"), ImportError::Unusable),
        ] {
            assert_eq!(read_private_key(&text).map(drop), Err(expected));
        }
    }
}
