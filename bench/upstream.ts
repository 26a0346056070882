import { createServer } from 'node:net'

/**
 * Identity and content service as cheap as a program of Node can be one, since it shares the machine with what is measured: it looks at the path alone,
 * and takes what it reads at once for one request, which is what the service sends.
 */
const answer = (body: string): string => `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: keep-alive\r\nkeep-alive: timeout=60\r\n\r\n${body}`
const [IDENTITY, CONTENT] = [answer('{"entitled":true,"max_streams":5}'), answer('{"available":true}')]
const IDENTITY_REQUEST = 'GET /api/entitlement'

const server = createServer({ noDelay: true }, socket => {
  socket.on('data', bytes => { socket.write(bytes.toString('latin1', 0, IDENTITY_REQUEST.length) === IDENTITY_REQUEST ? IDENTITY : CONTENT, 'latin1') })
  socket.on('error', () => { /* the service has ended */ })
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address !== 'string') process.stdout.write(`${JSON.stringify({ msg: 'listening', address: `http://127.0.0.1:${address.port}` })}\n`)
})
