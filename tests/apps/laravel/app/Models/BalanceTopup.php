<?php

namespace App\Models;

class BalanceTopup extends CompanyRecord
{
}
