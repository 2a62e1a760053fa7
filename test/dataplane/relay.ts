/**
 * An API server that listens on 127.0.0.1 of the machine, made reachable at the same address and port in a namespace: its
 * kubeconfig and certificate do in there, too.
 *
 * A process in the namespace takes the connections and hands them on to this one by a unix socket, which knows no namespaces.
 */
import { randomUUID } from 'node:crypto';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { joinSockets } from './join-sockets.ts';
import type { Netns } from './netns.ts';
import { startProgram } from './program.ts';

export interface Relay {
  /** Breaks all connections and refuses new ones. Does nothing where that is so already. */
  cut(): Promise<void>;
  /** Takes new connections. Does nothing where that is so already. */
  restore(): Promise<void>;
  /** Happens by itself when the namespace is removed. */
  stop(): Promise<void>;
}

/** While the server itself is down, a connection is made, and ends at once. */
export async function startRelay(ns: Netns, port: number): Promise<Relay> {
  const path = join(ns.folder, `${randomUUID().slice(0, 8)}.sock`);
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    joinSockets(socket, connect({ host: '127.0.0.1', port, allowHalfOpen: true }));
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(path, resolve);
  });
  const program = await startProgram(ns, 'relay', port, path).catch((error: unknown) => {
    server.close();
    throw error;
  });
  const close = async () => {
    await program.ended;
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  const closed = close();
  let state: 'cut' | 'restore' = 'restore';
  const change = async (to: typeof state) => {
    if (to === state) return;
    state = to;
    program.say(to);
    await program.next();
  };
  return {
    cut: () => change('cut'),
    restore: () => change('restore'),
    async stop() {
      await program.kill();
      await closed;
    },
  };
}
