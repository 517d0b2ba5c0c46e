"""Read the files of the study SCP1064 (Perturb-CITE-seq), in the portal's layouts or as h5ad."""
