import { execa } from 'execa';

const STATE = 'proto esp spi 0x1 mode tunnel aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128';

/** Whether this machine's kernel does ESP, in both families, for us: asked in a network namespace that is gone after it. */
export async function hasESP(): Promise<boolean> {
  const states = ['src 192.0.2.1 dst 192.0.2.2', 'src 2001:db8::1 dst 2001:db8::2'];
  const input = states.map((state) => `xfrm state add ${state} ${STATE}`).join('\n');
  const { exitCode } = await execa('unshare', ['--net', 'ip', '-batch', '-'], { input, reject: false });
  return exitCode === 0;
}
