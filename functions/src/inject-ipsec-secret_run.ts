import { main } from '../lib/run.ts';
import { NAME, injectIpsecSecret, usage } from './inject-ipsec-secret.ts';

void main({ name: NAME, usage, transform: injectIpsecSecret });
