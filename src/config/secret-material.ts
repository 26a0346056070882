/**
 * Whether a text is a key pair's material (PEM, or a JWK or JWKS of type RSA, EC or OKP) and not a shared secret.
 *
 * The public half of a pair is known to everyone: used as an HMAC secret, it lets everyone sign. The library tells the two apart
 * only where it has to guess the algorithm; here the algorithm is given, so the check is ours.
 */
export function isKeyPairMaterial (text: string): boolean {
  if (text.includes('-----BEGIN')) return true
  if (!/^\s*[[{]/.test(text)) return false
  try {
    // Written anew, so that neither white space nor escapes hide the key type.
    return /"kty":"(RSA|EC|OKP)"/.test(JSON.stringify(JSON.parse(text)))
  } catch {
    return false
  }
}
