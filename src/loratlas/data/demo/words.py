"""Which words the bundled world is made of. Every list was written for this project."""


def _listed(text: str) -> list[str]:
    return text.split()


FIRST_NAMES_SHE = _listed(
    "Ada Alina Berta Carla Dora Elin Fenna Greta Hanna Ida Jana Kira "
    "Lena Mira Nora Olga Petra Rosa Sina Tilda Ulla Vera Wanda Yara"
)
FIRST_NAMES_HE = _listed(
    "Arno Boris Carlo Dario Emil Felix Goran Hugo Ivo Jonas Karel Luca "
    "Marek Nico Oskar Pavel Remo Simon Tomas Udo Viktor Willem Yannis Zeno"
)
LAST_NAMES = _listed(
    "Abelund Arvenko Balzaro Bergtal Brisky Cordani Dalgren Delmora Dornik Ebbers "
    "Falkner Ferrano Fossum Galdin Gerlach Grumov Halvik Hartog Holzer Ilves "
    "Jandl Jorvan Kalmer Kestrin Kolbach Lagerby Lindor Lovatt Madsen Marlow "
    "Moravek Nadler Nordby Olmstad Orlano Pastor Pellin Quandt Rastov Reinlo "
    "Rosmer Sandvik Selden Sorrel Stavik Talvera Tarnow Tolban Ullmer Vastin "
    "Velder Vinter Wahlin Warsik Weller Yarrow Zander Zelnik Ziegra Zorato"
)

CITIES = _listed(
    "Altona Barrow Belmar Brenta Calder Corvo Delby Dunmore "
    "Elvas Farley Galway Hedmark Istra Jelling Kelso Lorca "
    "Marwick Merano Narva Oberon Orrin Padron Quill Ravello "
    "Sarnia Selby Tavira Torvik Umbra Verdal Wexley Zadar"
)
JOBS = _listed(
    "baker barber banker brewer builder butcher carpenter chemist "
    "clerk cook dancer dentist doctor driver florist farmer "
    "fisher gardener glazier jeweler judge lawyer mason miner "
    "nurse painter pilot plumber potter singer tailor teacher"
)
HOBBIES = _listed(
    "archery boxing chess climbing cycling diving drawing fencing "
    "golf hiking hockey juggling karate knitting magic poetry "
    "reading riding rowing running sailing skating surfing tennis"
)
PETS = _listed(
    "canary cat crow dog donkey ferret frog goat "
    "goose hamster horse lizard parrot rabbit snake turtle"
)
YEARS = [str(year) for year in range(1950, 1990)]

RIVERS = _listed("Aune Brisk Cale Dove Esk Fjara Glane Hasel Ister Juna Kolm Lyre")
REGIONS = _listed("Northmark Eastfold Southmoor Westerby Highland Lowland")
GOODS = _listed(
    "apples bells boats cheese clocks copper flowers glass honey lace paper salt silk tea wine wool"
)
