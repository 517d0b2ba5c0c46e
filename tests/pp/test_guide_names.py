"""Guides to targets: the names of public libraries are read right, or raise a clear error."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.guide_names import MIN_EXPLAINED, Genes, control_name, read_names

GENES = """
    MYC JUN FOS STAT1 STAT2 IFNGR1 GATA1 HLA-A HLA-B KLF1 MAP2K6 CBL A1BG AAAS RELA BACH2 ELK1
    CREB1 IER3IP1 ATF6 NKX2-1 FOXQ1 IL2RA ARID1A CCNE2 RAB1A TFAM
""".split()  # noqa: SIM905
MOUSE = "Trp53 Rela Rab14 H2-K1 mt-Co1 Stat1 Cd4".split()  # noqa: SIM905
C = ""  # a control guide
# By scheme: guides joined by spaces (or "; "), and their targets, or None for a clear error.
SCHEMES = {
    # Schemes of one gene and one number.
    "GENE_1": ("MYC_1 MYC_2 STAT1_1 non-targeting_1", ["MYC", "MYC", "STAT1", C]),
    "GENE-1, 10x Genomics": (
        "RAB1A-1 RAB1A-2 STAT1-1 Non-Targeting-1", ["RAB1A", "RAB1A", "STAT1", C]
    ),
    "GENE.1": ("MYC.1 MYC.2 STAT1.1 NTC.1", ["MYC", "MYC", "STAT1", C]),
    "GENEg1, Papalexi": ("IFNGR1g1 IFNGR1g2 STAT2g1 NTg1", ["IFNGR1", "IFNGR1", "STAT2", C]),
    "GENE g1": ("MYC g1; MYC g2; STAT1 g1; NT g1", ["MYC", "MYC", "STAT1", C]),
    "GENE_sg1, Hill": ("MYC_sg_1 MYC_sg_2 STAT1_sg_7 NTC_sg_9", ["MYC", "MYC", "STAT1", C]),
    "GENE(1)": ("MYC(1) MYC(2) STAT1(1) NTC(1)", ["MYC", "MYC", "STAT1", C]),
    "sgGENE_1, Sabatini": ("sgA1BG_1 sgA1BG_2 sgMYC_1 CTRL0001", ["A1BG", "A1BG", "MYC", C]),
    "sgGENE-1": ("sgMYC-1 sgMYC-2 sgHLA-A-1 sgNT-1", ["MYC", "MYC", "HLA-A", C]),
    "sgGENE": ("sgMYC sgSTAT1 sgNTC", ["MYC", "STAT1", C]),
    "1_GENE": ("1_MYC 2_MYC 3_STAT1 4_NTC", ["MYC", "MYC", "STAT1", C]),
    "p_sgGENE_1, Dixit": (
        "p_sgELK1_1 p_sgELK1_2 p_sgCREB1_3 p_INTERGENIC393453", ["ELK1", "ELK1", "CREB1", C]
    ),
    "ENSG_GENE_1": (
        "ENSG00000136997_MYC_1 ENSG00000136997_MYC_2 ENSG00000115415_STAT1_1 NTC_1",
        ["MYC", "MYC", "STAT1", C],
    ),
    "ENSG_1": ("ENSG00000136997_1 ENSG00000136997_2 NTC_1", ["ENSG00000136997"] * 2 + [C]),
    "dash in a symbol": (
        "HLA-A-1 HLA-A-2 NKX2-1-1 MYC-1 NTC-1", ["HLA-A", "HLA-A", "NKX2-1", "MYC", C]
    ),
    "Frangieh": (
        "HLA-A_1 HLA-B_2 MYC_1 NO_SITE_3 ONE_NON-GENE_SITE_1", ["HLA-A", "HLA-B", "MYC", C, C]
    ),
    "Schmidt": ("FOXQ1-1 FOXQ1-2 IL2RA-1 NO-TARGET-1", ["FOXQ1", "FOXQ1", "IL2RA", C]),
    "GeCKO's controls": ("MYC_1 MYC_2 NonTargetingControlGuideForHuman_0001", ["MYC", "MYC", C]),
    "Datlinger": (
        "Tcrlibrary_RELA_1 Tcrlibrary_BACH2_3 DHODHlibrary_DHODH_1 CTRL00698",
        ["RELA", "BACH2", "DHODH", C],
    ),
    # Positions, strands and sequences.
    "CRISPRi v2, Weissman; Tian": (
        "A1BG_-_58858617.23-P1 A1BG_+_58858964.23-P1 MYC_+_128748330.23-P1P2 non-targeting_00001",
        ["A1BG", "A1BG", "MYC", C],
    ),
    "TAP-seq": (
        "CROPseq_dCas9_DS_CCNE2_+_95907328.23-P1P2 CROPseq_dCas9_DS_GATA1-A "
        "CROPseq_dCas9_DS_GATA1-B CROPseq_dCas9_DS_HS2-A CROPseq_dCas9_DS_non-targeting_00000",
        ["CCNE2", "GATA1", "GATA1", "HS2", C],
    ),
    "TKOv3, Toronto": (
        "A1BG_CACCTTCGAGCTGCTGCGCG A1BG_AAGAGCGCCTCGGTCCCAGC MYC_AAGAGCGCCTCGGTCCCAGA "
        "LacZ_CCCGAATCTCTATCGTGCGG",
        ["A1BG", "A1BG", "MYC", C],
    ),
    "GENE_1_SEQUENCE": (
        "MYC_1_CACCTTCGAGCTGCTGCGCG MYC_2_AAGAGCGCCTCGGTCCCAGC NKX2-1_sg1_AAGAGCGCCTCGGTCCCAGA "
        "CTRL00001",
        ["MYC", "MYC", "NKX2-1", C],
    ),
    "library_GENE_1_SEQUENCE": (
        "Tcrlibrary_RELA_1_CACCTTCGAGCTGCTGCGCG Tcrlibrary_MYC_2_AAGAGCGCCTCGGTCCCAGC CTRL00698",
        ["RELA", "MYC", C],
    ),
    "GENE-1-SEQUENCE": (
        "MYC-1-CACCTTCGAGCTGCTGCGCG HLA-A-2-AAGAGCGCCTCGGTCCCAGC NTC_1", ["MYC", "HLA-A", C]
    ),
    "GENE-SEQUENCE": (
        "NKX2-1-CACCTTCGAGCTGCTGCGCG HLA-A-AAGAGCGCCTCGGTCCCAGC MYC-AAGAGCGCCTCGGTCCCAGA NTC_1",
        ["NKX2-1", "HLA-A", "MYC", C],
    ),
    "TKOv1, positions": (
        "chr19:58864777-58864796_A1BG_+ chr19:58864787-58864806_A1BG_- chr8:1-20_MYC_+",
        ["A1BG", "A1BG", "MYC"],
    ),
    "Yusa": (
        "A1BG_CCDS12976.1_ex3_19:58862927-58862950:-_5-1 A1BG_CCDS12976.1_ex4_19:1-20:+_5-1 "
        "MYC_CCDS6359.2_ex2_8:1-20:+_5-2",
        ["A1BG", "A1BG", "MYC"],
    ),
    "Adamson, without its old controls": (
        "ATF6_pBA576 CREB1_pDS269 IER3IP1_pDS003 Gal4-4(mod)_pBA582 3x_neg_ctrl_pMJ144-1",
        ["ATF6", "CREB1", "IER3IP1", C, C],
    ),
    # Several guides on one construct.
    "Replogle": (
        "AAAS_+_53715438.23-P1P2|AAAS_+_53715355.23-P1P2 "
        "MYC_+_128748330.23-P1|MYC_-_128748340.23-P1 non-targeting_01039|non-targeting_03850",
        ["AAAS", "MYC", C],
    ),
    "Replogle's gene_transcript": (
        "8832_TFAM_P1P2_ENSG00000108064 10_MYC_P1_ENSG00000136997 "
        "10755_non-targeting_non-targeting_non-targeting",
        ["TFAM", "MYC", C],
    ),
    "Norman": (
        "KLF1_NegCtrl0__KLF1_NegCtrl0 KLF1_MAP2K6__KLF1_MAP2K6 NegCtrl0_CBL__NegCtrl0_CBL "
        "NegCtrl10_NegCtrl0__NegCtrl10_NegCtrl0",
        ["KLF1", "KLF1+MAP2K6", "CBL", C],
    ),
    "Norman as GEARS has it": (
        "KLF1+ctrl KLF1+MAP2K6 ctrl+MAP2K6 ctrl", ["KLF1", "KLF1+MAP2K6", "MAP2K6", C]
    ),
    "scPerturb": ("KLF1 KLF1_MAP2K6 MAP2K6 control", ["KLF1", "KLF1+MAP2K6", "MAP2K6", C]),
    # Other public libraries.
    "10x Genomics, 3' v3": ("RAB1A-1 RAB1A-2 NON_TARGET-1 NON_TARGET-2", ["RAB1A", "RAB1A", C, C]),
    "Morgens, mouse": (
        "ENSMUSG00000026878_Rab14_SPA_50369.1 ENSMUSG00000026878_Rab14_SPA_50370.1 "
        "0Safe_safe_SPA_12.1",
        ["Rab14", "Rab14", C],
    ),
    "CRISPRi v2, mouse": (
        "0610007P14Rik_+_85822132.23-P1 0610007P14Rik_-_85822139.23-P1 Trp53_-_69587.23-P1P2 "
        "non-targeting_00001",
        ["0610007P14Rik", "0610007P14Rik", "Trp53", C],
    ),
    "Mimitou": (
        "sgCD4_1|sgCD3E_2 sgCD4_1|sgCD4_2 sgCD3E_1|sgCD3E_2 sgNTC_1|sgNTC_2",
        ["CD3E+CD4", "CD4", "CD3E", C],
    ),
    "pairs joined by a plus": (
        "MYC_1+JUN_2 MYC_1+NTC_1 NTC_1+JUN_2 NTC_1+NTC_2", ["JUN+MYC", "MYC", "JUN", C]
    ),
    "GENE-sgRNA1": ("MYC-sgRNA1 MYC-sgRNA2 JUN-sgRNA1 NTC-sgRNA1", ["MYC", "MYC", "JUN", C]),
    "GENE_gRNA_1": ("MYC_gRNA_1 MYC_gRNA_2 JUN_gRNA_1 NTC_gRNA_1", ["MYC", "MYC", "JUN", C]),
    "sgGene_1, mouse": ("sgTrp53_1 sgTrp53_2 sgRela_1 sgNT_1", ["Trp53", "Trp53", "Rela", C]),
    "mouse symbols with a dash": (
        "H2-K1-1 H2-K1-2 mt-Co1-1 Rela-1 Non-Targeting-1", ["H2-K1", "H2-K1", "mt-Co1", "Rela", C]
    ),
    "human symbols with a dash": (
        "NKX2-5_2 MT-CO1-g3 KRTAP5-1_1 RP11-34P13.7_2 H3-3A_1 MYC_1 NTC_1",
        ["NKX2-5", "MT-CO1", "KRTAP5-1", "RP11-34P13.7", "H3-3A", "MYC", C],
    ),
    "symbols without an approved name": (
        "C1orf43_1 LOC100505841_1 LINC00263_1 TRA2B.1 MYC_1 NTC_1",
        ["C1orf43", "LOC100505841", "LINC00263", "TRA2B", "MYC", C],
    ),
    "symbols that spreadsheets turn into dates": (
        "MARCH1_1 SEPT9_2 DEC1_1 MYC_1 NTC_1", ["MARCH1", "SEPT9", "DEC1", "MYC", C]
    ),
    "dates before": (
        "2023-01-05_MYC_1 2023-01-05_JUN_1 2023-01-05_NTC_1", ["MYC", "JUN", C]
    ),
    "controls of other languages": (
        "Kontrolle_1 KONTROLLE_2 témoin_1 CONTROLNEG_1 contrôle_1 对照_1 対照-1 контроль_1 MYC_1 "
        "JUN_1",
        [C] * 8 + ["MYC", "JUN"],
    ),
    "controls with a number or a case of their own": (
        "non-targeting_00012 CTRL-1 safe_targeting NEG1 NC_1 SCR-2 EMPTY_1 NTControl1 "
        "NONTARG_1 MYC_1 JUN_1",
        [C] * 9 + ["MYC", "JUN"],
    ),
    # No target in the name, or more than one reading.
    "Calabrese and Gattinara by sequence": (
        "GTGTCGGGCGTGAGTCCCCG AAAGCGGACGTCTTGGTGAG GGGACTCACGCCCGACACGT", None
    ),
    "mGeCKO": ("MGLibA_00001 MGLibA_00002 MGLibB_00003", None),
    "sci-Plex": ("SAHA_10 SAHA_100 TSA_10 TSA_100 Vehicle_0", None),
    "doses of many drugs": (
        " ".join(f"JQ{i}_{dose}" for i in range(10) for dose in (10, 100, 1000)) + " DMSO_0", None
    ),
    "Jost, as published": (
        "HSPA5_HSPA5_+_128003624.23-P1P2_00 HSPA5_HSPA5_+_128003624.23-P1P2_08", None
    ),
    "atlas of transcription factors": ("TFORF0001-MYC TFORF0002-MYC TFORF3549-GFP", None),
    "TRC": ("TRCN0000039640 TRCN0000039641 TRCN0000039642", None),
    "interference and activation": ("MYC_i1 MYC_a1 JUN_i1 JUN_a1 NTC_1", None),
    "variants with a dash": ("STAT1-R274Q_1 STAT1-T385M_1 STAT1-WT_1", None),
    "what was done to a gene": ("MYC-KO_1 MYC-KO_2 JUN-KO_1 NTC_1", None),
    "enhancer, with a dash": ("MYC-ENH-1 MYC-ENH-2 MYC-1 NTC-1", None),
    "pairs with a dash": ("MYC-JUN_1 MYC-JUN_2 MYC-NTC_1 NTC-NTC_1", None),
    "short symbols before a g": ("ARg1 ARg2 F9g1 KLg1 NTg1", ["AR", "AR", "F9", "KL", C]),
    "short symbols": ("C3_1 F9_1 F11R_1 MYC_1 NTC_1", ["C3", "F9", "F11R", "MYC", C]),
    "spreadsheet dates": ("1-Mar_1 9-Sep_1 MYC_1 NTC_1", None),
    "dates behind": ("MYC_1_20230105 MYC_2_20230105 NTC_1_20230105", None),
    "days": ("D7_MYC_1 D14_MYC_1 D7_NTC_1", None),
    "wells": ("A01_1 B02_1 C03_1 NTC_1", None),
    "wells without a zero": ("A1_1 A12_1 B2_1 C3_1 NTC_1", None),
    "short barcodes": ("ACGTACGTAC_1 CCGTACGTAC_1 NTC_1", None),
    "antibodies": ("HTO_1 HTO_2 MYC_1 MYC_2 NTC_1", None),
    "cells without a guide": ("WT_1 PARENTAL_1 UNTREATED MYC_1 NTC_1", None),
    "lower case": ("myc_1 myc_2 jun_1 ntc_1", None),
    "spellings of a gene": ("Myc_1 MYC_2 JUN_1 NTC_1", None),
    "GeCKO": ("HGLibA_00001 HGLibA_00002 HGLibA_00003 HGLibB_00004", None),
    "GeCKO in capitals": ("HGLIBA_00001 HGLIBA_00002 HGLIBA_00003 HGLIBA_00004", None),
    "Brunello and Dolcetto by sequence": (
        "CATCTTCTTTCACCTGAACG CTCCGGGGAGAACTCCGGCG TCTCCATGGTGCATCAGCAG", None
    ),
    "Broad's ids": ("BRDN0003481017 BRDN0003481018 BRDN0003481019", None),
    "numbers": ("guide_1 guide_2 guide_3", None),
    "Gasperini": ("chr1.1234_top_two chr1.1234_second_two chr2.99_top_two scrambled_1", None),
    "Xie": ("chr10:100027943-100028343 chr10:100028943-100029343 chr1:1-200", None),
    "strands of positions": ("chr1:100:+ chr1:200:- NTC_1", None),
    "Adamson": ("ATF6_pBA576 CREB1_pDS269 63(mod)_pBA580", None),
    "two promoters": ("MYC_+_1.23-P1 MYC_-_2.23-P2 STAT1_+_3.23-P1P2 NTC_1", None),
    "enhancer of a gene": ("GATA1_enh_1 GATA1_enh_2 GATA1_1 GATA1_2 NTC_1", None),
    "barcodes": ("MYC_ACGTACGT MYC_ACGTACGA STAT1_TTTTACGA", None),
    "number without a mark": ("MYC1 MYC2 STAT11 STAT12 NT1", None),
    "doses": ("Trametinib_10 Trametinib_100 Dabrafenib_10 DMSO_0", None),
    "variants": ("MYC_T58A MYC_S62A MYC_WT", None),
    "allelic series, Jost": ("MYC_+_1.23-P1P2_00 MYC_+_1.23-P1P2_08 STAT1_+_3.23-P1P2_01", None),
    "pairs of unknown sides": ("AAA1+BBB1 CCC1+DDD1 control", None),
}  # fmt: skip


def cells_of(names, copies=2, genes=GENES):
    obs = pd.DataFrame({"guide": pd.Categorical(list(names) * copies)})
    obs.index = [f"c{i}" for i in range(len(obs))]
    counts = np.ones((len(obs), len(genes)), dtype=np.float32)
    return ad.AnnData(counts, obs, pd.DataFrame(index=list(genes)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_names_are_read_right_or_raise_a_clear_error(scheme):
    text, targets = SCHEMES[scheme]
    names = text.split("; " if "; " in text else " ")
    genes = MOUSE if "mouse" in scheme else GENES
    adata = cells_of(names, genes=genes)
    if targets is None:
        with pytest.raises(ValueError, match="read from their names") as caught:
            npt.pp.assign_guides(adata, guides="guide")
        calls = ("guides='guide', targets=\"library.csv\")", "guides='guide', targets={")
        assert all(call in str(caught.value) for call in calls)
        assert list(adata.obs) == ["guide"]
        assert not adata.uns
        return
    npt.pp.assign_guides(adata, guides="guide")
    table = adata.uns["guides"].loc[names]
    assert table["target"].tolist() == targets
    assert table["decided_by"].str.startswith("name: ").all()
    assert (table["kind"].ne("targeting") == table["target"].eq("")).all()
    assert table["n_cells"].eq(2).all()
    assert adata.obs["perturbation"].tolist() == [x or "control" for x in targets] * 2


SYMBOLS = """
    HLA-A HLA-DRA NKX2-5 NKX2-1 MT-CO1 TRA2B H3-3A KRTAP5-1 C1orf43 CDK4 CDK6 CDK9 TP53 TP63 F9 C3
    IL2 IL21 IL1B STAT1 STAT2 MYC MYCN AR KL NOP53 RAG1 RAG2 SEPT9 MARCH1 DEC1 A2M NTN1 NT5E SCRIB
    SCRT1 CTRC SAFB LUC7L RANBP1 NEGR1 MOCOS EMP1 GFPT1 RFPL1 CHERP H2AX F11R BORCS8-MEF2B
""".split()  # noqa: SIM905
FORMS = {
    "{s}_{i}": "NTC_{i}", "{s}-{i}": "Non-Targeting-{i}", "{s}.{i}": "NTC.{i}", "{s}g{i}": "NTg{i}",
    "sg{s}_{i}": "sgNTC_{i}", "{s}_sg{i}": "NTC_sg{i}", "{s}({i})": "NTC({i})",
    "{s}_+_12{i}.23-P1P2": "non-targeting_0000{i}", "lib_{s}_{i}": "lib_NTC_{i}",
    "{s}": "NTC", "{i}_{s}": "{i}_NTC",
    "{s}_+_{i}.23-P1|{s}_-_9{i}.23-P1": "non-targeting_000{i}|non-targeting_009{i}",
}  # fmt: skip


@pytest.mark.parametrize("measured", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("form", FORMS)
def test_no_name_of_a_scheme_has_another_target(form, measured):
    rng = np.random.default_rng(0)
    n_right = 0
    for n in (2, 4, 8, 16, 32) * 3:
        symbols = rng.choice(SYMBOLS, n, replace=False)
        targets = {form.format(s=symbol, i=i): symbol for symbol in symbols for i in (1, 2, 3)}
        names = {*targets, *(FORMS[form].format(i=i) for i in (1, 2))}
        genes = Genes.of(["ACTB", *symbols[rng.random(n) < measured]])
        found = read_names(sorted(names), genes)
        is_read = found.explained >= MIN_EXPLAINED and not found.shared_genes()
        n_right += is_read
        if is_read:
            for name in targets.keys() & found.found.keys():
                assert found.target_of(name) == targets[name]
            assert all(found.target_of(name) not in symbols for name in names - {*targets})
    # Bare symbols are read if they are measured; otherwise nothing shows that they are targets.
    assert n_right >= (9 if form != "{s}" else 15 if measured == 1 else 0)


def test_names_are_read_alike_whatever_the_measured_names():
    names = SCHEMES["GENEg1, Papalexi"][0].split()
    for genes in ([f"ENSG{i:011d}" for i in range(5)], ["CD3E", "CD4"]):
        adata = cells_of(names, genes=genes)
        npt.pp.assign_guides(adata, guides="guide")
        assert adata.uns["guides"]["target"].tolist() == ["IFNGR1", "IFNGR1", "", "STAT2"]
    adata = cells_of(["Rela-1", "Rela-2", "Trp53-1", "NTC-1"], genes=["ENSMUSG00000000001"])
    adata.var["gene_symbols"] = "Rela"
    npt.pp.assign_guides(adata, guides="guide")
    assert set(adata.uns["guides"]["target"]) == {"Rela", "Trp53", ""}


def test_genes_that_look_like_controls_are_genes():
    assert not any(map(control_name, ["NT5E_1", "NTN1-2", "LUC7L2_1", "NEGR1g1", "SAFB_1", "CTRC"]))
    assert all(map(control_name, ["NT", "eGFP_2", "AAVS1-1", "scrambled", "NTC2", "safe_harbor_1"]))


def test_genes_of_a_mouse_that_end_like_a_guide_are_not_cut():
    with pytest.raises(ValueError, match="read from their names"):
        npt.pp.assign_guides(cells_of(["Rag1", "Rag2", "NTC"], genes=MOUSE), guides="guide")


def test_few_targets_that_are_not_measured_are_named(caplog):
    names = [f"{gene}_1" for gene in (*GENES[:6], "LEER", "NTC")]
    npt.pp.assign_guides(cells_of(names), guides="guide")
    (note,) = [x.message for x in caplog.records if x.levelno == logging.WARNING]
    assert ": LEER." in note
    assert "pass control_guides" in note
    caplog.clear()
    npt.pp.assign_guides(cells_of(names, genes=["CD3E"]), guides="guide")
    assert not [x for x in caplog.records if x.levelno == logging.WARNING]


def test_few_names_in_doubt_are_listed_and_settled_by_a_mapping():
    names = (
        [f"MYC_{i}" for i in range(20)]
        + [f"STAT1_{i}" for i in range(19)]
        + ["NTC_1", "odd.name_x"]
    )
    adata = cells_of(names)
    with pytest.warns(UserWarning, match=r"1 guides are in doubt.*odd\.name_x"):
        npt.pp.assign_guides(adata, guides="guide")
    row = adata.uns["guides"].loc["odd.name_x"]
    assert (row["target"], row["decided_by"]) == ("odd.name_x", "doubtful")
    npt.pp.assign_guides(adata, guides="guide", targets={"odd.name_x": "control"})
    table = adata.uns["guides"]
    assert table.loc["odd.name_x", ["kind", "decided_by"]].tolist() == ["control", "mapping"]
    assert table["decided_by"].value_counts().to_dict() == {"name: GENE_1": 40, "mapping": 1}
    npt.pp.assign_guides(adata, guides="guide", control_guides=["NTC", "odd.name_x"])
    assert adata.uns["guides"]["kind"].eq("control").sum() == 2


LIBRARY = {"a": "MYC", "b": "MYC_enhancer", "c": "HS2 P1", "d": "Non-Targeting"}
SEQUENCES = ["ACGTACGTACGTACGTACGT", "ACGTACGTACGTACGTACGA", "T" * 20, "G" * 20]


def write(folder, kind):
    """Write the library in a form; return its path and a column of sequences, if it has one."""
    names = list(LIBRARY)
    ids = [f"id{x}" for x in names]
    forms = {
        "cell ranger": {"id": ids, "name": names, "read": "R2", "pattern": "5PNNN(BC)",
                        "sequence": SEQUENCES, "feature_type": "CRISPR Guide Capture",
                        "target_gene_id": ids, "target_gene_name": LIBRARY.values()},
        "mageck": {"id": names, "gRNA.sequence": SEQUENCES, "gene": LIBRARY.values()},
        "mageck, no headings": {"id": names, "seq": SEQUENCES, "gene": LIBRARY.values()},
        "addgene": {"Target Gene ID": 1, "Target Gene Symbol": LIBRARY.values(), "sgRNA": names},
        "two columns": {"x": names, "y": LIBRARY.values()},
    }  # fmt: skip
    table = pd.DataFrame(forms[kind])
    extra = pd.DataFrame([["else"] * table.shape[1]], columns=table.columns)
    tab = kind == "addgene"
    path = folder / ("library.tsv" if tab else "library.csv")
    table = pd.concat([table, extra])
    table.to_csv(path, index=False, header="no" not in kind, sep="\t" if tab else ",")
    column = {"cell ranger": "sequence", "mageck": "gRNA.sequence"}.get(kind)
    return path, "sequence" if "no" in kind else column


@pytest.mark.parametrize("as_frame", [False, True])
@pytest.mark.parametrize(
    "kind", ["cell ranger", "mageck", "mageck, no headings", "addgene", "two columns"]
)
def test_a_table_decides_and_its_labels_are_their_own(kind, as_frame, tmp_path):
    path, sequence = write(tmp_path, kind)
    if as_frame and "no" in kind:
        pytest.skip("a DataFrame has names of columns")
    adata = cells_of(LIBRARY)
    targets = pd.read_csv(path, sep=None, engine="python") if as_frame else path
    npt.pp.assign_guides(adata, guides="guide", targets=targets)
    table = adata.uns["guides"]
    assert table["target"].tolist() == ["MYC", "MYC_enhancer", "HS2 P1", ""]
    assert set(table["decided_by"]) == {"table" if as_frame else f"table: {path.name}"}
    assert table.columns[:4].tolist() == ["target", "kind", "n_cells", "decided_by"]
    if sequence:
        assert table[sequence].tolist() == SEQUENCES
    adata.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ad.read_h5ad(tmp_path / "a.h5ad").uns["guides"], table)


def test_a_column_decides():
    adata = cells_of(LIBRARY)
    adata.obs["gene"] = adata.obs["guide"].astype(str).map(LIBRARY)
    npt.pp.assign_guides(adata, guides="guide", targets="gene")
    assert set(adata.uns["guides"]["decided_by"]) == {"column: obs['gene']"}
    expected = ["MYC", "MYC_enhancer", "HS2 P1", "control"]
    assert adata.obs["perturbation"].tolist() == expected * 2
    adata.obs.loc["c0", "gene"] = "JUN"
    with pytest.raises(ValueError, match=r"several targets .*'gene'\]: a \(a: JUN, MYC"):
        npt.pp.assign_guides(adata, guides="guide", targets="gene")


def test_counts_of_guides_bring_the_targets_of_cell_ranger():
    adata = cells_of(LIBRARY, copies=1)
    var = pd.DataFrame({"target_gene_name": LIBRARY, "pattern": "5P(BC)"})
    umi = ad.AnnData(9 * np.eye(4), pd.DataFrame(index=adata.obs_names), var)
    npt.pp.assign_guides(adata, guides=umi)
    table = adata.uns["guides"]
    assert table["target"].tolist() == ["MYC", "MYC_enhancer", "HS2 P1", ""]
    assert set(table["decided_by"]) == {"column: var['target_gene_name']"}
    assert table["pattern"].tolist() == ["5P(BC)"] * 4


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ({"z": "MYC"}, ValueError, "None of 4 guides is in the mapping"),
        (pd.DataFrame({"guide": ["a"], "target": ["MYC"]}), ValueError, "3 of 4 guides are not in"),
        (pd.DataFrame({"guide": list("abcd"), "x": 1, "y": 2}), ValueError, "names the targets"),
        (
            pd.DataFrame({"guide": list("aabcd"), "target": list("MNOPQ")}),
            ValueError, "several targets in the table: a",
        ),
        (pd.DataFrame({"guide": list("abcd"), "target": "A_+_1.23"}), ValueError, r"A_\+_1.23"),
        ("absent.csv", ValueError, "neither a file nor a column"),
        (3, TypeError, "must be a mapping"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_raises(targets, error, message):
    with pytest.raises(error, match=message):
        npt.pp.assign_guides(cells_of(LIBRARY), guides="guide", targets=targets)


def test_a_screen_starts_from_a_column_of_guides(caplog):
    names = ["MYC_1", "MYC_2", "MYC_1,NTC_2", "JUN_1", "NTC_1", "NTC_2", "MYC_1,JUN_1"]
    adata = cells_of(names, copies=30)
    adata.X = np.random.default_rng(0).poisson(5, adata.shape).astype(np.float32)
    labelled = npt.pp.assign_guides(adata, guides="guide", copy=True)
    options = {"guide_key": "guides", "combinations": "keep", "copy": True}
    expected = npt.pp.perturbation_screen(labelled, **options)
    with caplog.at_level(logging.INFO, "nextpert"):
        found = npt.pp.perturbation_screen(adata, **(options | {"guide_key": "guide"}))
    for column in ("perturbation", "guides", "n_targets"):
        assert found.obs[column].tolist() == expected.obs[column].tolist(), column
    pd.testing.assert_frame_equal(found.uns["guides"], expected.uns["guides"])
    assert found.uns["screen"]["guide_key"] == "guides"
    lines = [x.message for x in caplog.records if x.name.endswith("_guide_targets")]
    assert len(lines) == 5
    assert "5 guides of 2 targets; decided by name: GENE_1 (5)" in lines[0]


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_the_usual_separator_of_a_column_of_guides_is_found(mark, caplog):
    names = ["MYC_1", "MYC_2", "NTC_1", mark.join(["MYC_1", "JUN_1"]), f"JUN_1{mark} NTC_1"]
    adata = cells_of(names)
    with caplog.at_level(logging.INFO, "nextpert"):
        npt.pp.assign_guides(adata, guides="guide")
    assert adata.obs["perturbation"].tolist()[:5] == ["MYC", "MYC", "control", "JUN+MYC", "JUN"]
    assert adata.obs["guides"].tolist()[3:5] == ["MYC_1,JUN_1", "JUN_1"]
    assert any(f"joined by {mark!r}" in x.message for x in caplog.records)


def test_constructs_of_two_guides_are_not_split():
    names = ["MYC_1|MYC_2", "JUN_1|JUN_2", "NTC_1|NTC_2", "MYC_1|MYC_2;JUN_1|JUN_2"]
    adata = cells_of(names)
    npt.pp.assign_guides(adata, guides="guide")
    assert list(adata.uns["guides"].index) == sorted(names[:3])
    assert adata.obs["perturbation"].tolist()[:4] == ["MYC", "JUN", "control", "JUN+MYC"]


def test_labels_that_are_guides_name_the_call():
    adata = cells_of(SCHEMES["GENEg1, Papalexi"][0].split(), copies=30)
    with pytest.raises(ValueError, match=r"control.*pp.assign_guides\(adata, guides='guide'"):
        npt.pp.perturbation_screen(adata, "guide")
    adata = cells_of(["MYC_1", "MYC_2", "NTC_1", "MYC_1;NTC_1", "JUN_1;MYC_2", "JUN_1"], copies=30)
    with pytest.raises(ValueError, match=r"No control cells.*guides named GENE_1: call pp.assign"):
        npt.pp.perturbation_screen(adata, "guide")
    adata = cells_of([*SCHEMES["CRISPRi v2, Weissman; Tian"][0].split()[:2], "control"])
    with pytest.raises(ValueError, match="joins no two targets"):
        npt.pp.perturbation_screen(adata, "guide")


def test_the_report_shows_how_targets_were_decided(full_screen, tmp_path):
    labels = full_screen.obs["perturbation"].astype(object).fillna("control")
    full_screen.obs["guide"] = labels.str.replace("+", "_1,") + "_1"
    npt.pp.assign_guides(full_screen, guides="guide", key_added="label")
    page = npt.report(full_screen, tmp_path / "a.html").read_text()
    assert "how these were decided" in page
    assert "name: GENE_1" in page


# -- real names ---------------------------------------------------------------------------------


@pytest.mark.screen
def test_names_of_tap_seq_give_the_curated_labels(screen_path):
    folder = screen_path / "schraivogel_tapseq"
    adata = ad.read_h5ad(folder / "schraivogel_tapseq_umi5.h5ad")
    umi = ad.read_h5ad(folder / "gRNA_counts.h5ad")
    npt.pp.assign_guides(adata, guides=umi, multiple="multi", key_added="found")
    curated = adata.obs["perturbation"].astype(str).replace("non-targeting", "control")
    assert (adata.obs["found"].astype(str) == curated).all()


@pytest.mark.screen
def test_names_of_papalexi_give_the_curated_labels(screen_path):
    adata = ad.read_h5ad(screen_path / "papalexi_thp1" / "papalexi_lowmoi.h5ad")
    npt.pp.assign_guides(adata, guides="grna", key_added="found")
    assert (adata.obs["found"].astype(str) == adata.obs["perturbation"].astype(str)).all()


@pytest.mark.screen
def test_names_of_hill_give_the_curated_labels(screen_path):
    adata = ad.read_h5ad(screen_path / "hill2018_cropseq" / "hill2018_cropseq.h5ad")
    npt.pp.assign_guides(adata, guides="target.gene", key_added="found")
    curated = adata.obs["perturbation"].astype(str)
    assert (adata.obs["found"].astype(str) == curated).mean() > 0.99


@pytest.mark.screen
def test_names_of_norman_give_the_curated_labels(screen_path):
    """The file has the curated labels alone; names of guides are made as in GSE133344."""
    adata = ad.read_h5ad(screen_path / "norman2019" / "norman_subset.h5ad")
    curated = adata.obs["perturbation"].astype(str)
    pairs = (
        curated.replace("control", "NegCtrl10").str.split("+").map(lambda x: [*x, "NegCtrl0"][:2])
    )
    adata.obs["guide_identity"] = pairs.map("_".join) + "__" + pairs.map("_".join)
    npt.pp.assign_guides(adata, guides="guide_identity", key_added="found")
    expected = curated.map(lambda label: "+".join(sorted(label.split("+"))))
    assert (adata.obs["found"].astype(str) == expected).all()


def test_a_common_prefix_takes_three_names():
    names = ["pool_seven_MYC_1", "pool_seven_JUN_1", "pool_seven_FOS_1"]
    found = read_names(names, Genes.of(GENES)).found
    assert [found[name].targets for name in names] == [("MYC",), ("JUN",), ("FOS",)]
    assert read_names(names[:2], Genes.of(GENES)).found == {}
