import { createServer, type Socket } from 'node:net'

const HOST = '127.0.0.1'
const DATABASES = 16

/**
 * Serves js-redis-server's engine on a loopback port. The package's own listener takes no host (it listens on every interface), leaves Nagle's
 * algorithm on and waits on close for its clients to leave, so the listener here is ours and only the engine is the package's.
 *
 * It lacks WAIT, replication, persistence, MEMORY and the `#!lua` line, and its INFO tells no maxmemory.
 */
export async function startInProcess (): Promise<{ description: string, host: string, port: number, close: () => Promise<void> }> {
  // Half a megabyte of code that production never needs.
  const { attachSession, createRedisCommandExecutor, RedisServerState, SocketConnectionTransport } = await import('js-redis-server/core')
  const state = new RedisServerState({ databaseCount: DATABASES })
  const executor = createRedisCommandExecutor()
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true, keepAlive: true }, socket => {
    sockets.add(socket)
    socket.on('close', () => { sockets.delete(socket) })
    socket.on('error', () => { /* a client that went away; 'close' follows */ })
    attachSession(new SocketConnectionTransport(socket), { state, executor, clientAddress: `${socket.remoteAddress}:${socket.remotePort}` })
  })
  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, HOST, () => {
      const address = server.address()
      if (address === null || typeof address === 'string') reject(new Error('the embedded Redis has no port'))
      else resolve(address.port)
    })
  })
  let closing: Promise<void> | undefined
  const close = async () => {
    closing ??= new Promise(resolve => {
      server.close(() => { resolve() })
      for (const socket of sockets) socket.destroy()
      state.close()
    })
    await closing
  }
  return { description: 'js-redis-server, in this process', host: HOST, port, close }
}
