/**
 * How a node's routing agent tells endpoint-sync that Cilium's agent there has lost on-prem ranges which a CiliumEndpoint
 * still lists (a policy with the same CIDR does that, and the deletion of another owner).
 *
 * Whenever its list changes, the routing agent sends `POST /lost-ranges {"node": "<name>"}` to endpoint-sync, port 9811.
 * That is a hint and carries no authority: endpoint-sync then reads `GET /lost-ranges` of the routing agent on that node,
 * port 9810 of the node's address, which only a process in that node's own network can answer. An answer is the whole list: `{"lost": [{"pod":
 * "vpn-frontend-0", "cidr": "10.8.0.0/16"}]}`.
 */
import { Cidr } from '../../functions/model/cidr.ts';
import { list, object, required } from '../../functions/model/codec.ts';
import { ObjectName } from '../../functions/model/name.ts';

export const LOST_RANGES_PATH = '/lost-ranges';
export const ROUTING_PORT = 9810;
export const ENDPOINT_SYNC_PORT = 9811;

/** The body of the hint. */
export const LostRangesHint = object('hint', { node: required(ObjectName, "The node's name.") });

export interface LostRange {
  /** The frontend's pod, as its CiliumEndpoint is called. */
  readonly pod: string;
  readonly cidr: Cidr;
}

/** The answer to GET. */
export const LostRanges = object('answer', {
  lost: required(
    list(
      object('lost range', {
        pod: required(ObjectName, "The frontend's pod."),
        cidr: required(Cidr, 'The range.'),
      }),
    ),
    'Every range that is missing on that node.',
  ),
});
