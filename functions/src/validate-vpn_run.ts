import { main } from '../lib/run.ts';
import { NAME, validateVpn, usage } from './validate-vpn.ts';

void main({ name: NAME, usage, transform: validateVpn });
