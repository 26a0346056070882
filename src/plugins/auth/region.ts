import type { FastifyRequest } from 'fastify'
import { BlockList, isIP } from 'node:net'
import { ProblemError } from '../../problems.ts'
import type { Principal } from './principal.ts'

/** Header of a request that an instance of the other region forwards. */
export const FORWARDED = 'x-viewing-forwarded'

export interface RegionPolicy {
  defaultRegion: string
  /** Subnets whose word on the region counts. */
  trustProxy: readonly string[]
}

/**
 * The region a start is judged in, ISO 3166-1 alpha-2. What a player says of itself does not count: geo rules could be talked away.
 * @throws ProblemError 400 when a caller whose word counts says no region.
 */
export function vouchedRegion (request: FastifyRequest, principal: Principal, bodyRegion: string | undefined, policy: RegionPolicy): string {
  const vouches = principal.kind === 'user' ? principal.byGateway === true : principal.kind !== 'session'
  const trusted = isTrustedPeer(request.socket.remoteAddress, policy.trustProxy)
  if (!vouches && !trusted) return policy.defaultRegion
  const header = request.headers['x-region']
  // An instance of the other region has judged already, and says so in the header; the body is still the player's own.
  if (trusted && header !== undefined && request.headers[FORWARDED] !== undefined) return checked(header, '/headers/x-region')
  if (bodyRegion !== undefined) return checked(bodyRegion, '/body/region')
  return header === undefined ? policy.defaultRegion : checked(header, '/headers/x-region')
}

function checked (region: unknown, pointer: string): string {
  if (typeof region === 'string' && /^[A-Z]{2}$/.test(region)) return region
  throw new ProblemError('validation-failed', 'The region does not match the schema.', {
    extensions: { errors: [{ pointer, detail: 'must be a region of two capital letters' }] }
  })
}

function isTrustedPeer (address: string | undefined, subnets: readonly string[]): boolean {
  if (address === undefined || subnets.length === 0) return false
  const list = new BlockList()
  for (const subnet of subnets) {
    const [network = '', prefix] = subnet.split('/')
    const family = isIP(network) === 6 ? 'ipv6' : 'ipv4'
    if (isIP(network) !== 0) list.addSubnet(network, Number(prefix ?? (family === 'ipv6' ? 128 : 32)), family)
  }
  const plain = address.replace(/^::ffff:/, '')
  return list.check(plain, isIP(plain) === 6 ? 'ipv6' : 'ipv4')
}
