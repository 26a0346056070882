import type { FastifyRequest } from 'fastify'
import { BlockList, isIP } from 'node:net'
import { ProblemError } from '../../problems.ts'
import type { Principal } from './principal.ts'

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
  const trusted = principal.kind !== 'user' || isTrustedPeer(request.socket.remoteAddress, policy.trustProxy)
  const header = request.headers['x-region']
  if (!trusted) return policy.defaultRegion
  if (bodyRegion !== undefined) return bodyRegion
  if (header === undefined) return policy.defaultRegion
  if (typeof header !== 'string' || !/^[A-Z]{2}$/.test(header)) {
    throw new ProblemError('validation-failed', 'The headers do not match the schema.', { extensions: { errors: [{ pointer: '/headers/x-region', detail: 'must be a region of two capital letters' }] } })
  }
  return header
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
