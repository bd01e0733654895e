"""Two indexes in GraphQL, as a graph node would serve them: the protocol's, and DataProtector's.

`*.graphql` say what there is. From them follow the tables (`store`), the filters and the queries (`schema`);
`follow` fills them from the chain, `app` answers.
"""

from .follow import Subgraphs

__all__ = ["Subgraphs"]
