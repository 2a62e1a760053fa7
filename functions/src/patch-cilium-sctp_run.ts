import { main } from '../lib/run.ts';
import { NAME, patchCiliumSctp, usage } from './patch-cilium-sctp.ts';

void main({ name: NAME, usage, transform: patchCiliumSctp });
