"""Reading and writing of the slots of an AnnData, which no other package accesses."""

from nextpert._adata.features import load_features, read_features, warn_own_effects
from nextpert._adata.graph import (
    panel_of,
    read_graph,
    read_graphs,
    symbols_of,
    to_all_genes,
)
from nextpert._adata.labels import (
    LabelTable,
    read_every_label,
    read_labels,
    read_perturbations,
    require_control,
    say_pooled,
)
from nextpert._adata.origin import (
    changes_of_fit,
    changes_since,
    fingerprint,
    missing_roles,
    one_look,
    origin_of_cells,
    read_result,
    remedy_of,
    same_cells,
    say_changes,
    words_of,
)
from nextpert._adata.panel import (
    closest,
    guide_hint,
    id_hint,
    in_order,
    measured_genes,
    panel_index,
    resolve_panel,
)
from nextpert._adata.posterior import posterior_from, require_other_cells
from nextpert._adata.read import (
    read_blocks,
    require_layer,
    seen_and_constant,
)
from nextpert._adata.roles import Roles, fitted_roles, read_roles
from nextpert._adata.scale import check_scale
from nextpert._adata.screen import Batches, read_batches, read_groupings
from nextpert._adata.sources import real_values
from nextpert._adata.stored import (
    as_stored_csr,
    eager,
    read_stored,
    seed_of,
    write_results,
)
from nextpert.core._checks import list_names, named
from nextpert.core._codec import stored_lists, strings
