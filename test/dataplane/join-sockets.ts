import type { Socket } from 'node:net';

/** Two connections to one, both with allowHalfOpen: what ends or breaks at one end does so at the other. */
export function joinSockets(one: Socket, other: Socket): void {
  one.pipe(other).pipe(one);
  breakTogether(one, other);
  breakTogether(other, one);
}

function breakTogether(socket: Socket, partner: Socket): void {
  // `close` follows.
  socket.on('error', () => undefined);
  socket.on('close', () => {
    // In order: the partner has been told the end, and may still be sending.
    if (!socket.readableEnded || !socket.writableFinished) partner.destroy();
  });
}
