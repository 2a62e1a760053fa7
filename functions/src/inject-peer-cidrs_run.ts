import { main } from '../lib/run.ts';
import { NAME, injectPeerCidrs, usage } from './inject-peer-cidrs.ts';

void main({ name: NAME, usage, transform: injectPeerCidrs });
