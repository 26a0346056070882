import { createHash, createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'

export type TokenAlgorithm = 'HS256' | 'ES256' | 'EdDSA'
/** One playback key. `material` is what signs (the first key) or verifies: a secret, or PEM text. */
export interface PlaybackKey { kid: string, alg: TokenAlgorithm, material: string }

/** `kid`: the first 8 hex digits of SHA-256 of the key; of the public half for a key pair, so that signer and verifier agree. */
export function keyId (material: string | KeyObject): string {
  const bytes = typeof material === 'string' ? material : material.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(bytes).digest('hex').slice(0, 8)
}

/** The key that signs, from `JWT_SECRET`. */
export function signingKey (text: string, problems: string[]): PlaybackKey {
  if (!text.includes('-----BEGIN')) return { kid: keyId(text), alg: 'HS256', material: text }
  try {
    const pem = text.replaceAll('\\n', '\n')
    const publicKey = createPublicKey(createPrivateKey(pem))
    const alg = pairAlgorithm(publicKey)
    if (alg !== undefined) return { kid: keyId(publicKey), alg, material: pem }
  } catch { /* reported below: the reason may quote the key */ }
  problems.push('JWT_SECRET: must be a secret, or a PEM private key of curve P-256 or Ed25519')
  return { kid: '', alg: 'HS256', material: text }
}

const PEM = /-----BEGIN [^-]+-----[^-]+-----END [^-]+-----/g

/** The keys that only verify, from `JWT_SECRETS_ACCEPTED`. */
export function acceptedKeys (text: string | undefined, problems: string[]): PlaybackKey[] {
  if (text === undefined) return []
  if (!text.includes('-----BEGIN')) {
    return text.split(',').map(item => item.trim()).filter(item => item !== '').map(material => ({ kid: keyId(material), alg: 'HS256', material }))
  }
  try {
    const pems = text.replaceAll('\\n', '\n')
    // A key that is cut off or mixed with secrets would else be passed over, and its tokens refused.
    if (pems.replace(PEM, '').replace(/[\s,]/g, '') !== '') throw new Error('something else')
    return (pems.match(PEM) ?? []).map(pem => {
      const publicKey = createPublicKey(pem)
      const alg = pairAlgorithm(publicKey)
      if (alg === undefined) throw new Error('curve')
      return { kid: keyId(publicKey), alg, material: publicKey.export({ type: 'spki', format: 'pem' }).toString() }
    })
  } catch {
    problems.push('JWT_SECRETS_ACCEPTED: must be secrets separated by commas, or PEM public keys of curve P-256 or Ed25519')
    return []
  }
}

function pairAlgorithm (key: KeyObject): TokenAlgorithm | undefined {
  if (key.asymmetricKeyType === 'ed25519') return 'EdDSA'
  return key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1' ? 'ES256' : undefined
}
