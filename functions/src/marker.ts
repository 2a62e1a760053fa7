/** UnrenderedManifests: the object that makes manifests undeployable until the functions have run. */
import { get, type Item } from '../model/krm.ts';
import { edit, groupOf, kindOf, mapAt } from './items.ts';

/** The items without `fn` in a marker's `spec.waitingFor`, and without a marker that waits for nobody any more. */
export function markRendered(items: readonly Item[], fn: string): Item[] {
  return items.flatMap((item) => {
    if (kindOf(item) !== 'UnrenderedManifests' || groupOf(item) !== 'constellation-vpn.io') return [item];
    const waiting = get(item, 'spec', 'waitingFor');
    const others = Array.isArray(waiting) ? waiting.filter((name) => name !== fn) : [];
    return others.length === 0 ? [] : [edit(item, (draft) => (mapAt(draft, 'spec').waitingFor = others))];
  });
}
