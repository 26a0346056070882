import type { Socket } from 'node:net'
import fp from 'fastify-plugin'
import { fixedLines } from './answer-headers.ts'
import { Connection, type Front } from './plain-http/connection.ts'

export interface PlainHttpOptions {
  /** Start of the paths whose requests are read here. */
  prefix: string
  /** Largest body that is read here, bytes. */
  maxBodyBytes: number
  /** A request has to be here in full by then, ms. */
  requestMs: number
}

const SWEEP_MS = 1_000
/** Added to the time that clients are told, so that they leave first. */
const KEEP_ALIVE_MARGIN_MS = 1_000

/**
 * Reads and answers plain requests itself, and gives every other connection to Node's HTTP server, with what it has sent. Node's two streams and
 * their states for a request of 300 bytes and an answer of one write are half of what a bare POST costs. Beyond this plugin nobody sees a difference.
 */
export default fp<PlainHttpOptions>(async function plainHttp (fastify, { prefix, maxBodyBytes, requestMs }) {
  const { server } = fastify
  const connections = new Set<Connection>()
  const nodes = server.listeners('connection') as Array<(socket: Socket) => void>
  const front: Front = {
    server,
    prefix,
    maxBodyBytes,
    fixedLines,
    keepAliveLines: `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(server.keepAliveTimeout / 1_000)}\r\n`,
    requestSweeps: Math.ceil(requestMs / SWEEP_MS),
    idleSweeps: Math.ceil((server.keepAliveTimeout + KEEP_ALIVE_MARGIN_MS) / SWEEP_MS),
    toNode: socket => { for (const node of nodes) node.call(server, socket) },
    forget: connection => { connections.delete(connection) }
  }
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => { connections.add(new Connection(socket, front)) })

  const [closeIdle, closeAll] = [server.closeIdleConnections.bind(server), server.closeAllConnections.bind(server)]
  server.closeIdleConnections = () => {
    closeIdle()
    for (const connection of connections) connection.closeIfIdle()
  }
  server.closeAllConnections = () => {
    closeAll()
    for (const connection of connections) connection.destroy()
  }
  const sweeps = setInterval(() => { for (const connection of connections) connection.sweep() }, SWEEP_MS)
  sweeps.unref()
  // After the last connection has ended.
  fastify.addHook('onClose', async () => { clearInterval(sweeps) })
}, { name: 'plain-http' })
